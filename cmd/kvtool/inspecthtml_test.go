package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/internal/spacemap"
	"github.com/mmapkv/mmapkv/kv"
)

// hostileKeys are what somebody might name a key to be more than that on a page.
var hostileKeys = []string{
	`<script>document.title="run"</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='x`, `</style></title></svg><b>`, `<!-- `, `]]>`, `{{.}}`, `&lt;`,
	"\xff\xfe", "nul\x00", "\u202egnp.exe", "\u200b", strings.Repeat("long", 1<<14-1), strings.Repeat("x\u0301\u0301\u0301", 500), "שלום",
}

// inspected is an inspection of a record for each key that no file has, in a store that is damaged
// as well. The first keys have the largest records.
func inspected(keys []string) *inspection {
	now := time.Unix(1_790_000_000, 0)
	i := &inspection{path: "/var/<b>/\u202estore.mmkv", largest: largest{most: 10}, now: now, space: spacemap.New(1<<20, pageMapColumns*pageMapRows), headerBytes: 8192}
	off := i.headerBytes
	i.space.Add(0, off, spacemap.Header)
	for n, key := range keys {
		r := kv.Record{Off: off, Len: int64(max(800, 2000-50*n)), Key: []byte(key), Value: make([]byte, n), Written: now.Add(-time.Duration(n*n) * time.Hour), Live: n%9 < 6}
		i.add(&r)
		i.space.Record(r.Off, r.Len, r.Live)
		off += r.Len
	}
	i.maps = mapSizes{"m": {Name: "<i>map</i>", Keys: "\u202estring", Values: `"json"`, Entries: 3, Bytes: 1 << 20, noted: true}}
	i.stats = kv.Stats{Generation: 3}
	for range lostShown + 2 {
		i.stats.Missing = append(i.stats.Missing, kv.Range{Off: off, Len: 64})
		i.space.Add(off, 64, spacemap.Damaged)
		off += 64
	}
	i.stats.Tail, i.stats.FileBytes = off, off+off/8
	return i
}

func writePage(t *testing.T, i *inspection) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, i.page()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// elements counts those of a page by name, and fails if one is not closed or anything runs.
func elements(t *testing.T, page []byte) map[string]int {
	t.Helper()
	count, open := map[string]int{}, []string{}
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta"}, xml.HTMLEntity
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("at byte %d: %v", d.InputOffset(), err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			count[e.Name.Local]++
			if e.Name.Local != "meta" {
				open = append(open, e.Name.Local)
			}
			for _, a := range e.Attr {
				if name := a.Name.Local; strings.HasPrefix(name, "on") || name == "href" || name == "src" {
					t.Errorf("<%s> has %s=%q", e.Name.Local, name, a.Value)
				}
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != e.Name.Local {
				t.Fatalf("at byte %d: </%s> within %q", d.InputOffset(), e.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("not closed: %q", open)
	}
	return count
}

// Goal: whatever keys, names and paths are, the page is well-formed, shows each key as text and
// has no element that it has not with harmless ones; and it stays small.
// Method: a page of each hostile key among harmless ones, against one of harmless keys alone.
func TestPageEscapes(t *testing.T) {
	harmless := make([]string, 8)
	for n := range harmless {
		harmless[n] = fmt.Sprint("key", n)
	}
	want := elements(t, writePage(t, inspected(harmless)))
	if want["script"]+want["img"]+want["link"] > 0 || want["svg"] == 0 {
		t.Fatalf("elements %v", want)
	}
	for _, key := range hostileKeys {
		keys := append([]string{key}, harmless[1:]...)
		page := writePage(t, inspected(keys))
		got := elements(t, page)
		for _, name := range []string{"script", "img", "b", "i", "style", "title", "bdi", "meta"} {
			if got[name] != want[name] {
				t.Errorf("%.40q: %d elements <%s>, want %d", key, got[name], name, want[name])
			}
		}
		if !bytes.Contains(page, []byte(template.HTMLEscapeString(shown(key)))) {
			t.Errorf("%.40q is not on the page", key)
		}
		if bytes.ContainsAny(page, "\x00\u202e\u200b") || !bytes.Equal(page, bytes.ToValidUTF8(page, nil)) {
			t.Errorf("%.40q: the page has bytes that do not show", key)
		}
		if len(page) > 100<<10 {
			t.Errorf("%.40q: a page of %d bytes", key, len(page))
		}
	}
}

// Goal: a page is there for a store without records, and for times that no clock shows.
func TestPageOfLittle(t *testing.T) {
	i := inspected(nil)
	i.maps = nil
	page := writePage(t, i)
	elements(t, page)
	if !bytes.Contains(page, []byte("There are no keys.")) || bytes.Contains(page, []byte("Growth by time")) {
		t.Errorf("the page of no records:\n%s", page)
	}
	for _, at := range []int64{-1 << 63, -1, 0, 1<<63 - 1} {
		i.add(&kv.Record{Off: 8192, Len: 8, Written: time.Unix(at, 0), Live: true})
		page = writePage(t, i)
		elements(t, page)
		if bytes.Contains(page, []byte("NaN")) || bytes.Contains(page, []byte("Inf")) {
			t.Errorf("written at %d: a figure that is none", at)
		}
	}
}

// pageLook is what the browser is asked about a page.
const pageLook = `(() => {
	const rgb = c => c.match(/[\d.]+/g).map(Number);
	const light = c => c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const look = {Wide: document.documentElement.scrollWidth, Height: document.documentElement.scrollHeight, Contrast: 99, Text: "", Beyond: [], Small: 99, Resources: performance.getEntriesByType("resource").length,
		Title: document.title};
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement, style = getComputedStyle(e);
		const range = document.createRange();
		range.selectNodeContents(walk.currentNode);
		const box = range.getBoundingClientRect();
		if (!walk.currentNode.data.trim() || box.width === 0 || e.closest("title,desc,style")) continue;
		if (box.right > innerWidth || box.left < 0) look.Beyond.push(walk.currentNode.data);
		let under = e;
		while (under.parentElement && (rgb(getComputedStyle(under).backgroundColor)[3] === 0)) under = under.parentElement;
		const text = light(rgb(e.closest("svg") ? style.fill : style.color)), back = light(rgb(getComputedStyle(under).backgroundColor));
		const contrast = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
		if (contrast < look.Contrast) { look.Contrast = contrast; look.Text = walk.currentNode.data; }
		const svg = e.closest("svg"), scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
		look.Small = Math.min(look.Small, parseFloat(style.fontSize) * scale);
	}
	return look;
})()`

// Goal: a browser draws the page: readable in light and dark, on a telephone and on a desk, nothing
// beyond its edge, the map in its colours; it runs nothing, and asks nobody for anything.
// Method: a headless Chromium, asked for the contrast and the place of each text, for its
// requests and complaints, and for a picture, of which the colours are counted.
func TestPageInBrowser(t *testing.T) {
	keys := append([]string{}, hostileKeys...)
	for n := range 3000 {
		keys = append(keys, fmt.Sprint("some/directory/of/keys/", n))
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, writePage(t, inspected(keys)), 0o600); err != nil {
		t.Fatal(err)
	}
	b := openBrowser(t)
	light := []color.RGBA{{0xff, 0xff, 0xff, 0xff}, {0x1a, 0x7f, 0x4b, 0xff}, {0xc2, 0x57, 0x1a, 0xff}, {0xd7, 0xdb, 0xe0, 0xff}, {0xc1, 0x12, 0x1f, 0xff}}
	dark := []color.RGBA{{0x12, 0x16, 0x1c, 0xff}, {0x35, 0xb6, 0x74, 0xff}, {0xe0, 0x81, 0x3f, 0xff}, {0x33, 0x3c, 0x47, 0xff}, {0xff, 0x5a, 0x66, 0xff}}
	for _, tc := range []struct {
		scheme string
		width  int
		colors []color.RGBA // the background; live, dead, unused and lost cells
	}{{"light", 400, light}, {"dark", 400, dark}, {"light", 1200, light}, {"dark", 1200, dark}} {
		name := fmt.Sprintf("%s, %d pixels", tc.scheme, tc.width)
		for _, e := range b.open("file://"+path, tc.width, tc.scheme) {
			if line := fmt.Sprint(e.Params); e.Method == "Log.entryAdded" || e.Method == "Runtime.exceptionThrown" || e.Method == "Network.requestWillBeSent" && !strings.Contains(line, path) {
				t.Errorf("%s: %s %s", name, e.Method, line)
			}
		}
		var look struct {
			Wide, Height, Resources int
			Contrast, Small         float64
			Text, Title             string
			Beyond                  []string
		}
		b.eval(pageLook, &look)
		if look.Wide > tc.width || len(look.Beyond) > 0 {
			t.Errorf("%s: the page is %d wide; beyond its edge: %.200q", name, look.Wide, look.Beyond)
		}
		if look.Contrast < 4.5 {
			t.Errorf("%s: a contrast of %.2f: %.80q", name, look.Contrast, look.Text)
		}
		if look.Small < 11 {
			t.Errorf("%s: letters of %.1f pixels", name, look.Small)
		}
		if look.Resources > 0 || look.Title != shown(inspected(nil).path) {
			t.Errorf("%s: %d other files, title %q", name, look.Resources, look.Title)
		}
		shot := b.screenshot()
		size := shot.Bounds().Size()
		if size.X != tc.width || size.Y < look.Height {
			t.Errorf("%s: a picture of %v for a page of %d lines", name, size, look.Height)
		}
		for i, c := range tc.colors {
			least := 20
			if i == 0 {
				least = size.X * size.Y / 2
			}
			if n := pixels(shot, c); n < least {
				t.Errorf("%s: %d pixels of %x, want %d", name, n, c, least)
			}
		}
	}
}

// pixels counts those of a colour.
func pixels(shot *image.RGBA, c color.RGBA) (n int) {
	for at := 0; at < len(shot.Pix); at += 4 {
		if shot.Pix[at] == c.R && shot.Pix[at+1] == c.G && shot.Pix[at+2] == c.B {
			n++
		}
	}
	return n
}
