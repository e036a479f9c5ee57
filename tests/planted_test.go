package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/internal/invariants"
)

// edit replaces a piece of a source file that occurs in it once.
type edit struct{ file, old, new string }

// Edits that several tests must find.
var (
	asyncSync  = []edit{{"mmapfile/sync.go", "unix.MS_SYNC", "unix.MS_ASYNC"}}
	timeUnseen = []edit{{"kv/resume.go", "if closed && (mark != crc.CloseMark{Length: h.identity.Length, Modified: h.identity.Modified}) {", "if closed && mark.Length < 0 {"}}
)

// plantedFaults are faults of the product, each with the tests that must find it.
// DESIGN.md has them as a table.
var plantedFaults = []struct {
	name  string
	edits []edit
	dir   string // of the module and package whose tests find it
	tests string
	args  []string
}{
	{"no msync", []edit{{"kv/sync.go", "err := g.file.Sync(from, end-from)", "err := error(nil)"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"MS_ASYNC", asyncSync,
		"mmapfile", "TestSyncReachesDevice", nil},
	{"MS_ASYNC, on a device whose power is cut", asyncSync,
		"tests/device", "TestPowerCutDevice", []string{"-cuts", "60"}},
	{"the mark before the sync", []edit{
		{"kv/sync.go", "		err := g.file.Sync(from, end-from)\n", "		s.mark(g, end, revision)\n		err := g.file.Sync(from, end-from)\n"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"a sync of a part that acknowledges the rest", []edit{{"kv/sync.go", "s.syncUpTo(g, to.end, to.revision)", "s.syncUpTo(g, to.end, g.revision.Load())"}},
		"kv", "TestPowerCut", []string{"-cuts", "6000"}},
	{"no directory fsync after a rename", []edit{{"kv/compact.go", "if err = c.dir.Sync(); err != nil {", "if false {"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"rename before fsync", []edit{
		{"kv/compact.go", "	return c.next.file.SyncFile()\n}\n\n// writeBaseEnd", "	return nil\n}\n\n// writeBaseEnd"},
		{"kv/compact.go", "	if c.dir != nil {\n", "	if c.next != nil {\n		c.next.file.SyncFile()\n	}\n	if c.dir != nil {\n"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"ack after a failed sync", []edit{{"kv/sync.go", "		if err != nil {\n			return 0, s.setPoison(err)\n		}\n		mark := s.mark", "		mark := s.mark"}},
		"kv", "TestFailures", nil},
	{"another try after a failed sync", []edit{{"kv/sync.go", "		if err != nil {\n			return 0, s.setPoison(err)\n		}\n		mark := s.mark", "		if err != nil {\n			return 0, err\n		}\n		mark := s.mark"}},
		"kv", "TestFailures", nil},
	{"no sync of what recovery shows", []edit{
		{"kv/recover.go", "	if err := g.file.Sync(redo, end-redo); err != nil {\n		return err\n	}\n", ""},
		{"kv/recover.go", "	if cut || doubt {\n", "	if cut {\n"},
		{"kv/recover.go", "	} else if doubt {\n", "	} else if false {\n"}},
		"kv", "TestPowerCut", []string{"-cuts", "6000"}},
	{"a torn tail not cut off", []edit{{"kv/recover.go", "	cut := g.file.Size() > length\n", "	cut := false\n"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"an acknowledged batch split", []edit{{"kv/tx.go", "flags := crc.FlagMore", "flags := uint32(0)"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"recovery ends at the mark", []edit{{"kv/recover.go", "	scan := newScanner(g, log[:min(int64(len(log)), maxFileSize)])", "	scan := newScanner(g, log[:min(int64(len(log)), max(mark.Off, crc.HeaderSize))])"}},
		".", "TestKill", nil},
	{"a sum that skips the length and the flags", []edit{{"crc/record.go", "	le.PutUint64(b[8:], word)\n	le.PutUint64(b[16:], salt)", "	le.PutUint64(b[16:], salt)"}},
		".", "TestFlipEveryBit", []string{"-test.short"}},
	{"an offset not bound into the sum", []edit{{"crc/record.go", "	le.PutUint64(b[24:], uint64(off))\n", ""}},
		".", "TestDamage", nil},
	{"a salt not bound into the sum", []edit{{"crc/record.go", "	le.PutUint64(b[16:], salt)\n	le.PutUint64(b[24:]", "	le.PutUint64(b[24:]"}},
		".", "TestDamage", nil},
	{"a gap that hides a record", []edit{{"kv/scan.go", " || !c.trusted && r.entry.Revision != want:", ":"}},
		".", "TestGapHidesNothing", nil},
	{"a salvage that looks for records page by page", []edit{{"kv/scan.go", "*at < int64(len(c.log)); *at += crc.Align {", "*at < int64(len(c.log)); *at += crc.Page {"}},
		".", "TestAccidents", nil},
	{"a durable page written to again", []edit{{"kv/generation.go", "if end == g.sealed {", "if false {"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"no check of a segment's sum", []edit{{"kv/resume.go", "if crc.SegmentSum(v.buf, int(id), v.Salt) != seg.Sum {", "if false {"}},
		"kv", "TestCheckpointDamage", nil},
	{"no check of the log's time and length", timeUnseen,
		"kv", "TestLogTouched", nil},
	{"no check of the log's time and length, by accident", timeUnseen,
		".", "TestAccidents", nil},
	{"no check of the tail sum", []edit{{"kv/resume.go", "v.TailSum != crc.TailSum(log, v.Last, v.End) || ", ""}},
		"kv", "TestCheckpointOfAnotherFuture", nil},
	{"a tail sum that is one of values only", []edit{{"crc/checkpoint.go", "		d.Write(log[last : last+FrameSize])\n", ""}},
		"kv", "TestCheckpointOfAnotherFuture", nil},
	{"nothing counts as not verified", []edit{{"kv/resume.go", "	g.unverified.Store(v.End)\n	g.checkpoint", "	g.unverified.Store(crc.Align)\n	g.checkpoint"}},
		"kv", "TestUnseenDamage", nil},
	{"all counts as verified though it is not", []edit{{"kv/resume.go", "	if sound {\n		g.unverified", "	if sound || end > 0 {\n		g.unverified"}},
		"kv", "TestUnseenDamage", nil},
	{"a checkpoint that was not synced is believed after a reboot", []edit{
		{"kv/resume.go", "v.Boot != 0 && (v.Boot != h.boot || v.Boot != mmapfile.BootID()),", "v.Boot == mmapfile.BootID()+1<<63,"}},
		"kv", "TestCheckpointOfAnotherBoot", nil},
	{"records that were not synced are believed", []edit{{"kv/resume.go", "	if err = v.open(f, h); err == nil && v.Boot != 0 {", "	if err = v.open(f, h); err == nil && false {"}},
		"kv", "TestCheckpointCoversUnsynced", nil},
	{"a checkpoint that covers a record which it does not have", []edit{
		{"kv/checkpoint.go", "	for _, slot := range v.snap.t.slots(v.snap.dir[at]) {\n", "	for _, slot := range v.snap.t.slots(v.snap.dir[at]) {\n			if int64(slot&offMask)<<3 == head.Last {\n				slot = 0\n			}\n"}},
		"kv", "TestPowerCut", []string{"-cuts", "3000"}},
	{"a checkpoint that covers a record which it does not have, after a kill", []edit{
		{"kv/checkpoint.go", "	for _, slot := range v.snap.t.slots(v.snap.dir[at]) {\n", "	for _, slot := range v.snap.t.slots(v.snap.dir[at]) {\n			if int64(slot&offMask)<<3 == head.Last {\n				slot = 0\n			}\n"}},
		".", "TestKill", nil},
	{"damage that is known is left to a checkpoint", []edit{{"kv/checkpoint.go", " || s.corruptions.count.Load() > 0:", ":"}},
		".", "TestAccidents", nil},
	{"the segments behind a lost one are lost", []edit{{"kv/resume.go", "	case v.gone:\n", "	case v.lost != 0:\n"}},
		"kv", "TestLostSegments", nil},
	{"a record behind the checkpoint is forgotten", []edit{{"kv/notes.go", "replaced, off := v.enter(ix, v.notes[id])", "replaced, off := v.enter(ix, v.notes[id][1:])"}},
		"kv", "TestNotesAgree", nil},
	{"a record behind the checkpoint is entered before an earlier one", []edit{{"kv/notes.go", "*notes = append(*notes, note{r.hash, r.off, r.kind})", "*notes = append([]note{{r.hash, r.off, r.kind}}, *notes...)"}},
		"kv", "TestNotesAgree", nil},
	{"a read that does not look what others wrote", []edit{{"kv/store.go", "follows: o.Shared || o.ReadOnly && !o.Salvage", "follows: o.ReadOnly && !o.Salvage"}},
		"tests/processes", "TestLinearizable", nil},
	{"a turn that several have", []edit{{"mmapfile/share_linux.go", "		return false, nil\n	}\n	return err == nil, err", "		return true, nil\n	}\n	return err == nil, err"}},
		"tests/processes", "TestLinearizable", nil},
	{"who opens beside others recovers", []edit{{"kv/share.go", "	case !others:\n", "	case !others || err == nil:\n"}},
		"tests/processes", "TestLinearizable", nil},
	{"who closes beside others cuts the slack off", []edit{
		{"kv/share.go", "others, err := s.company.Shared(); others || err != nil {", "others, err := s.company.Shared(); others && false || err != nil {"},
		{"kv/share.go", "	if others || err != nil {\n		s.endTurn(g)", "	if others && false || err != nil {\n		s.endTurn(g)"}},
		"tests/processes", "TestComeAndGo", nil},
	{"two processes compact at once", []edit{{"kv/share.go", "had, err := g.file.TryLockByte(compactLock, false)", "had, err := true, error(nil)"}},
		"tests/processes", "TestLinearizable", nil},
	{"what a dead writer left is not wiped", []edit{{"kv/share.go", "return g, s.wipe(g)", "return g, nil"}},
		"kv", "TestSharedLeftover", nil},
	{"the wiping is not synced", []edit{{"kv/share.go", "if err := g.file.Sync(end, written-end); err != nil {", "if err := error(nil); err != nil {"}},
		"kv", "TestSharedLeftoverOnDevice", nil},
	{"a turn that begins with what was known", []edit{{"kv/share.go", "	if next, err = s.catchUp(); err != nil || next != g {\n		return next, err\n	}\n	if word, end", "	if word, end"}},
		"kv", "TestSharedByTurns", nil},
	{"the tail is moved after the index", []edit{{"kv/share.go", "	g.tailWord().Store(uint64(end))\n}\n\n// awaitOwn", "}\n\n// awaitOwn"}},
		"kv", "TestSharedReadsAgree", nil},
	{"a name that nobody has synced", []edit{{"kv/share.go", "	return syncDir(s.disk, filepath.Dir(s.path))", "	_ = filepath.Dir\n	return nil"}},
		"kv", "TestSharedNameDurable", nil},
	{"a name that is not durable yet", []edit{{"kv/stats.go", " && !s.sync.busy && s.poisoned() == nil", ""}},
		"kv", "TestSharedDurableNotBeforeName", nil},
	{"the mark outside of a turn", []edit{{"kv/share.go", "	if had {\n		s.endTurn(g)", "	if had || err == nil {\n		s.endTurn(g)"}},
		"kv", "TestSharedMarkInTurn", nil},
	{"company before it is known who was there", []edit{{"kv/share.go", "err = s.awaitTurn(context.Background(), f, time.Time{})", "err = errors.Join(s.company.Share(), s.awaitTurn(context.Background(), f, time.Time{}))"}},
		"kv", "TestSharedOpenersRecover", nil},
	{"company before the store is recovered", []edit{{"kv/share.go", "	case !others:\n		g, err", "	case s.company.Share() == nil && !others:\n		g, err"}},
		"kv", "TestSharedRecoveryFails", nil},
	{"presence before the store is recovered", []edit{{"kv/share.go", "present = present && err == nil && f.Mapping().Word(crc.BootOff).Load() == mmapfile.BootID()", "present = present && err == nil"}},
		"kv", "TestFollowerBesideRecovery", nil},
	{"a file whose sync failed is gone on in", []edit{{"kv/store.go", "	if err != nil || !failed {\n", "	if err != nil || !failed || len(s.path) > 0 {\n"}},
		"tests/device", "TestOpenAfterFailedSync", nil},
	{"a mapping longer than the file", []edit{{"kv/store.go", "return at && !shrank(f), err", "return at, err"}},
		"kv", "TestOpenMeetsClose", nil},
	{"a follower goes on with what a writer that came has not published", []edit{{"kv/recover.go", "			return errCame\n", "			_ = errCame\n"}},
		"kv", "TestFollowerMeetsWriter", nil},
}

// plantedEnv chooses the fault that a build with all of them has: its number.
const plantedEnv = "MMAPKV_PLANTED"

// Goal: the laboratory finds what it is there to find. Method: all faults are planted in a copy
// of the source, each in copies of the functions that it changes, of which the environment
// chooses one; go's -overlay puts that in the place of the files. The tests that must find a
// fault are run on it and must fail. What does not compile, or can no longer be planted, is a
// failure of this test.
func TestPlantedFaults(t *testing.T) {
	if raceDetector || invariants.Enabled || testing.Short() {
		t.Skip("the plain tests run it")
	}
	root, err := filepath.Abs("..")
	must(t, err)
	overlay := plant(t, root)
	built := make(map[string]string) // binaries by directory
	for i, fault := range plantedFaults {
		dir := filepath.Join(root, fault.dir)
		if fault.dir == "." {
			dir = filepath.Join(root, "tests")
		}
		t.Run(fault.name, func(t *testing.T) {
			binary, ok := built[dir]
			if !ok {
				binary = filepath.Join(filepath.Dir(overlay), fmt.Sprint("planted-", len(built)))
				build := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", binary)
				build.Dir = dir
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("does not build: %v\n%s", err, out)
				}
				built[dir] = binary
			}
			t.Parallel() // from here on: one builds at a time
			run := exec.Command(binary, append([]string{"-test.run", "^" + fault.tests + "$", "-test.timeout", "5m", "-test.v"}, fault.args...)...)
			run.Dir = dir
			run.Env = append(os.Environ(), fmt.Sprint(plantedEnv, "=", i), "TMPDIR="+t.TempDir()) // for the images that it keeps
			out, err := run.CombinedOutput()
			if _, why, skipped := strings.Cut(string(out), "SKIPPED: "); skipped && err == nil {
				t.Skipf("SKIPPED: %.100s", why)
			}
			if err == nil || !strings.Contains(string(out), "--- FAIL: "+fault.tests) {
				t.Fatalf("%s does not find it: %v\n%.2000s", fault.tests, err, out)
			}
			_, found, _ := strings.Cut(string(out), "--- FAIL: ")
			t.Logf("found: %.300s", found)
		})
	}
}

// plant writes the files with all faults, and the overlay that puts them in place.
func plant(t *testing.T, root string) (overlay string) {
	t.Helper()
	dir := t.TempDir()
	sources := make(map[string]*plantedSource)
	for i, fault := range plantedFaults {
		edited := make(map[string]string)
		for _, e := range fault.edits {
			if sources[e.file] == nil {
				b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.file)))
				must(t, err)
				sources[e.file] = &plantedSource{original: string(b), guards: make(map[string]string)}
			}
			if edited[e.file] == "" {
				edited[e.file] = sources[e.file].original
			}
			if n := strings.Count(edited[e.file], e.old); n != 1 {
				t.Fatalf("%s: %s has %d places for %q", fault.name, e.file, n, e.old)
			}
			edited[e.file] = strings.Replace(edited[e.file], e.old, e.new, 1)
		}
		for file, text := range edited {
			if err := sources[file].add(i, text); err != nil {
				t.Fatalf("%s, %s: %v", fault.name, file, err)
			}
		}
	}
	replace := make(map[string]string)
	write := func(file, text string) {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		must(t, os.WriteFile(to, []byte(text), 0o600))
		replace[filepath.Join(root, filepath.FromSlash(file))] = to
	}
	for file, source := range sources {
		text, err := source.text()
		must(t, err)
		write(file, text)
		name, _, _ := strings.Cut(file, "/")
		write(name+"/planted.go", fmt.Sprintf("package %s\n\nimport \"os\"\n\nvar planted = os.Getenv(%q)\n", name, plantedEnv))
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	must(t, err)
	overlay = filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(overlay, b, 0o600))
	return overlay
}

// plantedSource is a source file, and what faults make of it.
type plantedSource struct {
	original string
	copies   strings.Builder   // of functions, each with a fault
	guards   map[string]string // what each function is to begin with: calls of its copies
}

// add adds fault number i, which makes edited of the file.
func (p *plantedSource) add(i int, edited string) error {
	before, err := functionsOf(p.original)
	if err != nil {
		return err
	}
	after, err := functionsOf(edited)
	if err != nil {
		return err
	}
	changed := false
	for key, f := range after {
		if was, ok := before[key]; ok && was.text == f.text {
			continue
		}
		changed = true
		name := fmt.Sprint(f.decl.Name.Name, "Planted", i)
		call, err := f.call(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&p.copies, "\n%s%s%s\n", f.text[:f.name], name, f.text[f.name+len(f.decl.Name.Name):])
		p.guards[key] += fmt.Sprintf("\n\tif planted == %q {\n\t\t%s\n\t}", fmt.Sprint(i), call)
	}
	if !changed || len(before) != len(after) {
		return errors.New("no function is changed")
	}
	return nil
}

// text returns the file with all that was added.
func (p *plantedSource) text() (string, error) {
	functions, err := functionsOf(p.original)
	if err != nil {
		return "", err
	}
	text := p.original
	for _, key := range slices.SortedFunc(maps.Keys(p.guards), func(a, b string) int { return functions[b].body - functions[a].body }) {
		at := functions[key].body // from the last to the first, so that these stay right
		text = text[:at] + p.guards[key] + text[at:]
	}
	return text + p.copies.String(), nil
}

// sourceFunction is a function of a source file.
type sourceFunction struct {
	decl *ast.FuncDecl
	text string
	name int // offset of its name in text
	body int // offset of what its body begins with in the file
}

// functionsOf returns the functions of a source by receiver and name.
func functionsOf(source string) (map[string]sourceFunction, error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "", source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	all := make(map[string]sourceFunction)
	at := func(pos token.Pos) int { return files.Position(pos).Offset }
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		key := f.Name.Name
		if f.Recv != nil {
			key = types.ExprString(f.Recv.List[0].Type) + "." + key
		}
		all[key] = sourceFunction{f, source[at(f.Pos()):at(f.End())], at(f.Name.Pos()) - at(f.Pos()), at(f.Body.Lbrace) + 1}
	}
	return all, nil
}

// call returns the statement that does by the function of that name all that f is to do.
func (f *sourceFunction) call(name string) (string, error) {
	if f.decl.Type.TypeParams != nil {
		return "", fmt.Errorf("%s has type parameters", f.decl.Name.Name)
	}
	if f.decl.Recv != nil {
		if len(f.decl.Recv.List[0].Names) == 0 {
			return "", fmt.Errorf("the receiver of %s has no name", f.decl.Name.Name)
		}
		name = f.decl.Recv.List[0].Names[0].Name + "." + name
	}
	var args []string
	for _, field := range f.decl.Type.Params.List {
		for _, n := range field.Names {
			args = append(args, n.Name)
		}
		if len(field.Names) == 0 || slices.Contains(args, "_") {
			return "", fmt.Errorf("a parameter of %s has no name", f.decl.Name.Name)
		}
	}
	call := name + "(" + strings.Join(args, ", ") + ")"
	if f.decl.Type.Results != nil {
		return "return " + call, nil
	}
	return call + "\n\t\treturn", nil
}
