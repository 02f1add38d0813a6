-- Version 2: what control planes on one log tell each other beside it. Nothing of it is an event, and whoever said it
-- says it again: it may be lost with a backup or a failover.

-- The newest of each thing that was said. `told_at` is when it was said, `written_at` when it came here.
CREATE TABLE leviathan.notices (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    told_at timestamptz NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    content text,
    PRIMARY KEY (kind, name)
);
CREATE INDEX notices_by_arrival ON leviathan.notices (written_at);

-- The passes that were asked of the schedulers, in one row.
CREATE TABLE leviathan.passes (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    requested bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    last text
);
INSERT INTO leviathan.passes DEFAULT VALUES;

INSERT INTO leviathan.schema_version (version) VALUES (2);
