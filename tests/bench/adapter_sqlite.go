//go:build linux && !386 && !arm

package main

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

var sqliteAdapter = adapter{
	name: "SQLite", module: "modernc.org/sqlite", persistent: true, grouped: true,
	note: "journal_mode WAL, cache_size 1 GiB, mmap_size above the data, a checkpoint each 64 MiB of log, prepared statements, one writer at a time (sqlite.org/wal.html), fills in transactions of 1000; " +
		"WITHOUT ROWID where a row is below a twentieth of a page (sqlite.org/withoutrowid.html), an indexed BLOB above; not durable: synchronous NORMAL, which syncs at checkpoints; durable: FULL.",
	open: openSQLite,
}

type sqliteStore struct {
	db            *sql.DB
	mu            sync.Mutex // SQLite has one writer; waiting here costs less than its busy loop
	get, put, del *sql.Stmt
}

func openSQLite(dir string, c config) (Store, error) {
	synchronous := "NORMAL"
	if c.durable {
		synchronous = "FULL"
	}
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(%s)"+
		"&_pragma=cache_size(-1048576)&_pragma=mmap_size(%d)&_pragma=wal_autocheckpoint(16384)&_pragma=temp_store(MEMORY)&_pragma=busy_timeout(10000)",
		filepath.Join(dir, "store"), synchronous, max(1<<30, 4*c.bytes())))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	rowid := ""
	if keySize+c.value < 4096/20 {
		rowid = "WITHOUT ROWID"
	}
	s := &sqliteStore{db: db}
	if _, err = db.Exec("CREATE TABLE IF NOT EXISTS kv (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) " + rowid); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for text, stmt := range map[string]**sql.Stmt{
		"SELECT v FROM kv WHERE k = ?": &s.get,
		"INSERT INTO kv (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v": &s.put,
		"DELETE FROM kv WHERE k = ?": &s.del,
	} {
		if *stmt, err = db.Prepare(text); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return s, nil
}

func (s *sqliteStore) Get(key []byte) (value []byte, err error) {
	err = s.get.QueryRow(key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errMiss
	}
	return value, err
}

func (s *sqliteStore) Put(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.put.Exec(key, value)
	return err
}

func (s *sqliteStore) PutBatch(keys, values [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	put := tx.Stmt(s.put)
	defer put.Close()
	for i, key := range keys {
		if _, err := put.Exec(key, values[i]); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *sqliteStore) Delete(key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.del.Exec(key)
	return err
}

func (s *sqliteStore) Each(fn func(key, value []byte) error) error {
	rows, err := s.db.Query("SELECT k, v FROM kv")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k, v sql.RawBytes
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Sync moves the log into the database, which syncs both.
func (s *sqliteStore) Sync() error {
	_, err := s.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

func (s *sqliteStore) Compact() error {
	if _, err := s.db.Exec("VACUUM"); err != nil {
		return err
	}
	return s.Sync()
}

func (s *sqliteStore) Close() error { return s.db.Close() }
