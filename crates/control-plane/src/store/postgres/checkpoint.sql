-- Version 3: the newest signed checkpoint. Whoever may write it cannot make one: that takes the key.

CREATE TABLE leviathan.checkpoint (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    size bigint NOT NULL CHECK (size >= 0),
    note text NOT NULL
);

CREATE FUNCTION leviathan.refuse_fewer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.size <= OLD.size THEN
        RAISE EXCEPTION 'a checkpoint is only ever replaced by one of more records' USING ERRCODE = 'LV004';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON leviathan.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION leviathan.refuse_change();
CREATE TRIGGER only_forward BEFORE UPDATE ON leviathan.checkpoint
    FOR EACH ROW EXECUTE FUNCTION leviathan.refuse_fewer();
ALTER TABLE leviathan.checkpoint ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE leviathan.checkpoint ENABLE ALWAYS TRIGGER only_forward;

INSERT INTO leviathan.schema_version (version) VALUES (3);
