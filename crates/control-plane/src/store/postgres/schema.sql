-- Version 1 of the schema `leviathan`. Run once, in one transaction, by the role that owns it.

CREATE TABLE leviathan.schema_version (
    version integer PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now()
);

-- The end of the log, in one row. Whoever has locked it may append: numbers have no gaps, and no transaction with
-- a lower number commits after one with a higher.
CREATE TABLE leviathan.chain_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    origin text NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);

-- The body is kept as the bytes that were hashed. `jsonb` would keep another text.
CREATE TABLE leviathan.events (
    seq bigint PRIMARY KEY CHECK (seq > 0),
    event_id text COLLATE "C" NOT NULL UNIQUE,
    body bytea NOT NULL CHECK (octet_length(body) <= 262144),
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);

CREATE TABLE leviathan.bundles (
    first_seq bigint PRIMARY KEY,
    last_seq bigint NOT NULL CHECK (last_seq >= first_seq),
    bundle_id text COLLATE "C" NOT NULL
);

CREATE FUNCTION leviathan.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the log is only ever appended to: % of leviathan.% is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'LV004';
END $$;

CREATE FUNCTION leviathan.refuse_going_back() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.seq <= OLD.seq OR NEW.origin <> OLD.origin THEN
        RAISE EXCEPTION 'the head of the log only ever moves on' USING ERRCODE = 'LV004';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON leviathan.events
    FOR EACH STATEMENT EXECUTE FUNCTION leviathan.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON leviathan.bundles
    FOR EACH STATEMENT EXECUTE FUNCTION leviathan.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON leviathan.chain_head
    FOR EACH STATEMENT EXECUTE FUNCTION leviathan.refuse_change();
CREATE TRIGGER only_forward BEFORE UPDATE ON leviathan.chain_head
    FOR EACH ROW EXECUTE FUNCTION leviathan.refuse_going_back();
-- Also for sessions that replicate.
ALTER TABLE leviathan.events ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE leviathan.bundles ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE leviathan.chain_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE leviathan.chain_head ENABLE ALWAYS TRIGGER only_forward;

-- Waits until nobody else appends. The turn is over when the transaction is.
CREATE FUNCTION leviathan.take_turn(OUT origin text, OUT seq bigint, OUT hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- All three can be changed while the server runs.
    IF current_setting('fsync') <> 'on' OR current_setting('full_page_writes') <> 'on'
        OR current_setting('synchronous_commit') = 'off' THEN
        RAISE EXCEPTION 'fsync, full_page_writes or synchronous_commit is off: nothing is recorded that a crash could take back'
            USING ERRCODE = 'LV001';
    END IF;
    SELECT head.origin, head.seq, head.hash INTO STRICT origin, seq, hash
        FROM leviathan.chain_head AS head FOR UPDATE;
END $$;

-- Chains `bodies` after the head (`after_seq`, `after_hash`) and moves the head. The bundles have `names`, and as
-- many bodies each as `sizes` says. `last_hash` is what the caller says that the last hash will be.
CREATE FUNCTION leviathan.append_bundles(
    after_seq bigint, after_hash bytea, names text[], sizes integer[], bodies bytea[], last_hash bytea
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head record;
    tag CONSTANT bytea := convert_to(E'leviathan-event-v1\n', 'UTF8');
    body bytea;
    chained bytea := after_hash;
    number bigint := after_seq;
    hashes bytea[] := ARRAY[]::bytea[];
    previous bytea[] := ARRAY[]::bytea[];
BEGIN
    SELECT it.seq, it.hash INTO STRICT head FROM leviathan.chain_head AS it FOR UPDATE;
    IF head.seq <> after_seq OR head.hash <> after_hash THEN
        RAISE EXCEPTION 'the log ends with record %, not with record %', head.seq, after_seq USING ERRCODE = 'LV002';
    END IF;
    IF cardinality(bodies) = 0 OR cardinality(names) <> cardinality(sizes)
        OR (SELECT sum(size) FROM unnest(sizes) AS size) <> cardinality(bodies) THEN
        RAISE EXCEPTION 'the bundles do not add up' USING ERRCODE = 'LV003';
    END IF;
    FOREACH body IN ARRAY bodies LOOP
        number := number + 1;
        previous[number - after_seq] := chained;
        chained := sha256(tag || chained || int8send(number) || int4send(octet_length(body)) || body);
        hashes[number - after_seq] := chained;
    END LOOP;
    IF chained <> last_hash THEN
        RAISE EXCEPTION 'the database and the control plane compute different hashes for record %', number
            USING ERRCODE = 'LV003';
    END IF;
    INSERT INTO leviathan.events (seq, event_id, body, prev_hash, hash)
        SELECT after_seq + it.place, convert_from(it.body, 'UTF8')::json ->> 'event_id', it.body, it.prev_hash, it.hash
        FROM unnest(bodies, previous, hashes) WITH ORDINALITY AS it (body, prev_hash, hash, place);
    INSERT INTO leviathan.bundles (first_seq, last_seq, bundle_id)
        SELECT after_seq + it.upto - it.size + 1, after_seq + it.upto, it.name
        FROM (SELECT name, size, sum(size) OVER (ORDER BY place) AS upto
              FROM unnest(names, sizes) WITH ORDINALITY AS part (name, size, place)) AS it;
    UPDATE leviathan.chain_head SET seq = number, hash = chained;
END $$;

REVOKE ALL ON FUNCTION leviathan.take_turn() FROM PUBLIC;
REVOKE ALL ON FUNCTION leviathan.append_bundles(bigint, bytea, text[], integer[], bytea[], bytea) FROM PUBLIC;

INSERT INTO leviathan.schema_version (version) VALUES (1);
