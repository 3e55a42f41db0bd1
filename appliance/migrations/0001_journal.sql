CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row a decided event. JSON of the core's own types; the store does not look inside.
CREATE TABLE journal (
    seq            INTEGER PRIMARY KEY,
    epoch          INTEGER NOT NULL,
    elapsed_ms     INTEGER NOT NULL,
    wall_ms        INTEGER NOT NULL,
    core_version   TEXT    NOT NULL,
    policy_version INTEGER NOT NULL,
    event          TEXT    NOT NULL,
    changes        TEXT    NOT NULL,
    commands       TEXT    NOT NULL,
    notices        TEXT    NOT NULL
) STRICT;

CREATE TABLE snapshot (
    seq        INTEGER PRIMARY KEY,
    elapsed_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL,
    world      TEXT    NOT NULL
) STRICT;

-- Closed incidents, whole.
CREATE TABLE incident (
    id       INTEGER PRIMARY KEY,
    host     INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    record   TEXT    NOT NULL
) STRICT;
CREATE INDEX incident_by_host ON incident (host, ended_ms);

CREATE TABLE config (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Sealed with XChaCha20-Poly1305; row and column are associated data.
CREATE TABLE secret (
    row    TEXT NOT NULL,
    column TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (row, column)
) STRICT;

-- What is to be told to others, written with the fact.
CREATE TABLE outbox (
    id      INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL,
    host    INTEGER,
    body    TEXT    NOT NULL,
    sent_ms INTEGER
) STRICT;

CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    wall_ms  INTEGER NOT NULL,
    body     TEXT    NOT NULL,
    previous BLOB    NOT NULL,
    hash     BLOB    NOT NULL
) STRICT;

CREATE TABLE audit_checkpoint (
    upto      INTEGER PRIMARY KEY,
    hash      BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;
