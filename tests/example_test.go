package tests

import (
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// documented are the packages of which every public type has an example.
var documented = []string{
	"kv",
	"kv/kvotel",
	"codec",
	"crc",
	"mmapfile",
}

// Goal: the documentation of every public type shows how it is used, with output that is
// compared when the tests run.
// Method: go/doc's own view of the files for Linux, which hangs each example on what it
// names. An alias is shown by the type that it stands for.
func TestExamples(t *testing.T) {
	linux := build.Default
	linux.GOOS = "linux"
	for _, name := range documented {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", name)
			p, err := linux.ImportDir(dir, 0)
			must(t, err)
			fset := token.NewFileSet()
			var files []*ast.File
			for _, list := range [][]string{p.GoFiles, p.TestGoFiles, p.XTestGoFiles} {
				for _, file := range list {
					f, err := parser.ParseFile(fset, filepath.Join(dir, file), nil, parser.ParseComments)
					must(t, err)
					files = append(files, f)
				}
			}
			docs, err := doc.NewFromFiles(fset, files, module+"/"+name)
			must(t, err)
			if len(docs.Types) == 0 {
				t.Error("no public type was found")
			}
			for _, typ := range docs.Types {
				if isAlias(typ) {
					continue
				}
				examples := typ.Examples
				for _, f := range append(typ.Funcs, typ.Methods...) {
					examples = append(examples, f.Examples...)
				}
				if !anyRuns(examples) {
					t.Errorf("type %s has no example that runs", typ.Name)
				}
			}
		})
	}
}

// isAlias tells whether the declaration gives another name to a type.
func isAlias(typ *doc.Type) bool {
	for _, spec := range typ.Decl.Specs {
		if s := spec.(*ast.TypeSpec); s.Name.Name == typ.Name {
			return s.Assign.IsValid()
		}
	}
	return false
}

// anyRuns tells whether one of them has an output: the others are only compiled.
func anyRuns(examples []*doc.Example) bool {
	for _, e := range examples {
		if e.Output != "" || e.EmptyOutput {
			return true
		}
	}
	return false
}
