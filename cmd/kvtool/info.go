package main

import (
	"bufio"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) infoVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info STORE",
		Short: "Print what a store is and how full it is",
		Long: `Info prints one screen about a store: what its header says, the bytes that are
live, dead and slack, the durable mark and what lies behind it, which process holds
the write lock, and which others have the store open. On Linux, where the system
tells: the processes of this user, and of others those that write.

Of a damaged store it prints what the header says, and that it is damaged, and
exits with 4.`,
		Example: `  kvtool info settings.mmkv
  kvtool info --json settings.mmkv | jq .live_bytes`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			info, damage := t.storeInfo(args[0])
			if info == nil {
				return damage
			}
			err := info.addUsers(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = t.printJSON(info)
			} else {
				err = t.print(func(w *bufio.Writer) error { return info.print(w, t.palette(t.out)) })
			}
			return errors.Join(damage, err)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// storeInfo is what info and stats print.
type storeInfo struct {
	Path              printable `json:"path"`
	FormatVersion     uint32    `json:"format_version"`
	CompatibleFlags   uint32    `json:"compatible_flags"`
	IncompatibleFlags uint32    `json:"incompatible_flags"`
	StoreID           string    `json:"store_id"`
	Created           time.Time `json:"created"`
	Generation        uint64    `json:"generation"`
	GenerationCreated time.Time `json:"generation_created"`
	FileBytes         int64     `json:"file_bytes"`
	Tail              int64     `json:"tail"`
	DurableOffset     int64     `json:"durable_offset"`
	DurableRevision   uint64    `json:"durable_revision"`
	UnsyncedBytes     int64     `json:"unsynced_bytes"` // of the log, behind the durable mark
	Holder            int       `json:"holder"`         // process id, 0 for none
	LastHolder        int       `json:"last_holder"`    // as noted, alive or not
	ThisBoot          bool      `json:"this_boot"`      // it was noted in this boot of the machine

	Users    []storeUser `json:"users"`     // null: the system does not tell
	UsersAll bool        `json:"users_all"` // none was withheld
	users    []kv.User

	*logInfo           // nil if the log could not be read
	Damage   printable `json:"damage,omitempty"`

	stats kv.Stats // or, if the log could not be read, what of them the header says
}

// logInfo is what only reading the log tells.
type logInfo struct {
	Keys       int64  `json:"keys"`
	Records    int64  `json:"records"`
	Revision   uint64 `json:"revision"`
	LiveBytes  int64  `json:"live_bytes"`
	DeadBytes  int64  `json:"dead_bytes"`
	SlackBytes int64  `json:"slack_bytes"`
	IndexBytes int64  `json:"index_bytes"`

	CheckpointBytes int64 `json:"checkpoint_bytes"` // of the log, that the checkpoint covers
}

func headerInfo(h kv.FileInfo) *storeInfo {
	return &storeInfo{
		Path: printable(h.Path), FormatVersion: h.Version, CompatibleFlags: h.Compatible, IncompatibleFlags: h.Incompatible,
		StoreID: fmt.Sprintf("%x", h.StoreID), Created: h.Created.UTC(), Generation: h.Generation,
		GenerationCreated: h.GenerationCreated.UTC(), FileBytes: h.FileBytes, Tail: h.Tail,
		DurableOffset: h.DurableTail, DurableRevision: h.DurableRevision, UnsyncedBytes: max(0, h.Tail-h.DurableTail),
		Holder: h.Holder, LastHolder: h.LastHolder, ThisBoot: h.ThisBoot,
		stats: kv.Stats{Generation: h.Generation, Tail: h.Tail, FileBytes: h.FileBytes, DurableTail: h.DurableTail, DurableRevision: h.DurableRevision},
	}
}

// addLog adds what s tells, and takes what it has in common with the header from
// there too, so that it is of the same moment.
func (i *storeInfo) addLog(s *kv.Stats) {
	i.stats = *s
	i.FileBytes, i.Tail = s.FileBytes, s.Tail
	i.DurableOffset, i.DurableRevision, i.UnsyncedBytes = s.DurableTail, s.DurableRevision, max(0, s.Tail-s.DurableTail)
	i.logInfo = &logInfo{
		Keys: s.Keys, Records: s.Records, Revision: s.Revision, LiveBytes: s.LiveBytes, DeadBytes: s.DeadBytes,
		SlackBytes: max(0, s.FileBytes-s.Tail), IndexBytes: s.IndexBytes, CheckpointBytes: s.Checkpoint,
	}
}

func (i *storeInfo) print(w *bufio.Writer, p palette) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	w.WriteString("path         ")
	writeText(w, []byte(i.Path))
	w.WriteString("\n")
	line("format", "version %d, compatible flags %#x, incompatible flags %#x", i.FormatVersion, i.CompatibleFlags, i.IncompatibleFlags)
	line("store id", "%s", i.StoreID)
	line("created", "%s", moment(i.Created))
	line("generation", "%d, since %s", i.Generation, moment(i.GenerationCreated))
	if l := i.logInfo; l != nil {
		line("keys", "%s", humanize.Comma(l.Keys))
		line("records", "%s", humanize.Comma(l.Records))
		line("revision", "%d", l.Revision)
		line("live", "%s", exactBytes(l.LiveBytes))
		line("dead", "%s", exactBytes(l.DeadBytes))
		line("slack", "%s", exactBytes(l.SlackBytes))
	}
	line("file", "%s", exactBytes(i.FileBytes))
	line("tail", "offset %s", humanize.Comma(i.Tail))
	line("durable", "offset %s, revision %d", humanize.Comma(i.DurableOffset), i.DurableRevision)
	line("unsynced", "%s", exactBytes(i.UnsyncedBytes))
	if l := i.logInfo; l != nil {
		line("index", "%s of memory", exactBytes(l.IndexBytes))
	}
	line("holder", "%s", i.holder())
	i.printUsers(w)
	if i.Damage == "" {
		line("state", "%s as far as Open checks: every sum", p.paint(inkGood, "sound"))
		return nil
	}
	line("state", "%s: keys, records and bytes of the log are not known; see kvtool check", p.paint(inkAlarm, "DAMAGED"))
	return nil
}

// moment is t for a person and for a machine.
func moment(t time.Time) string {
	return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), humanize.Time(t))
}
