-- The ledger's tables, version 1. Whoever changes what stands here makes another file, and never this one.
-- Times that end in _ms are milliseconds since 1970-01-01 UTC by a gateway's clock; timestamptz is the database's own.

CREATE TABLE onedelete.meta (
    program text PRIMARY KEY CHECK (program = 'onedelete'),
    version integer NOT NULL,
    hash_key bytea NOT NULL CHECK (length(hash_key) = 16)
);

CREATE TABLE onedelete.deletions (
    id uuid PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    created_ms bigint NOT NULL,
    finished_ms bigint,
    cancelled_ms bigint,
    contacts integer NOT NULL,
    parts integer NOT NULL,
    -- The caller's texts are bytes: they may hold anything, whatever encoding the database has.
    reason bytea,
    reference bytea,
    shares text[] COLLATE "C" NOT NULL,
    -- It is finished, and its identifiers are still there.
    kept boolean NOT NULL DEFAULT false
);
CREATE INDEX deletions_newest ON onedelete.deletions (tenant, id);
CREATE INDEX deletions_open ON onedelete.deletions (tenant, id) WHERE finished_ms IS NULL;
CREATE INDEX deletions_reference ON onedelete.deletions (tenant, reference, id) WHERE reference IS NOT NULL;
CREATE INDEX deletions_finished ON onedelete.deletions (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX deletions_kept ON onedelete.deletions (finished_ms) WHERE kept;

-- A part that is not accepted is a draft, or belonged to a deletion that was forgotten.
-- No index has a column that changes while a part is worked, and pages have room: then a change stays on its page.
CREATE TABLE onedelete.parts (
    deletion uuid NOT NULL,
    part integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    accepted boolean NOT NULL,
    begun_ms bigint NOT NULL,
    first integer NOT NULL,
    contacts integer NOT NULL,
    fence bigint NOT NULL,
    -- Null while nobody works it.
    lease_until timestamptz,
    -- Which call of `claim` it was claimed by.
    claimed_by uuid,
    over_at timestamptz,
    open integer NOT NULL CHECK (open >= 0),
    deleted integer NOT NULL,
    not_found integer NOT NULL,
    rejected integer NOT NULL,
    failed integer NOT NULL,
    unknown integer NOT NULL,
    skipped integer NOT NULL,
    pending integer NOT NULL,
    would_delete integer NOT NULL,
    absent integer NOT NULL,
    duplicates integer NOT NULL,
    PRIMARY KEY (deletion, part)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX parts_open ON onedelete.parts (tenant, deletion, part) WHERE accepted AND over_at IS NULL;
CREATE INDEX parts_loose ON onedelete.parts (begun_ms) WHERE NOT accepted;

CREATE TABLE onedelete.contacts (
    deletion uuid NOT NULL,
    part integer NOT NULL,
    seq integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (deletion, part, seq)
);

-- What is erased here is to be overwritten soon: the vacuum does not wait for the table to have grown.
CREATE TABLE onedelete.identifiers (
    deletion uuid NOT NULL,
    part integer NOT NULL,
    seq integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (deletion, part, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10, autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10,
    toast.autovacuum_vacuum_cost_delay = 0
);

-- Every record has a row here, even one that settled nothing: it says that the record was put down.
CREATE TABLE onedelete.results (
    deletion uuid NOT NULL,
    part integer NOT NULL,
    fence bigint NOT NULL,
    number bigint NOT NULL,
    seq integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (deletion, part, fence, number, seq)
);

CREATE TABLE onedelete.attempts (
    deletion uuid NOT NULL,
    part integer NOT NULL,
    share integer NOT NULL,
    ticket bigint NOT NULL,
    fence bigint NOT NULL,
    attempts bigint NOT NULL,
    in_doubt boolean NOT NULL,
    closed boolean NOT NULL DEFAULT false,
    last text,
    slots integer[] NOT NULL,
    PRIMARY KEY (deletion, part, share, ticket)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE onedelete.claims (
    scope bytea PRIMARY KEY,
    fingerprint bytea NOT NULL,
    deletion uuid NOT NULL,
    -- When its deletion was finished.
    finished_ms bigint
);
CREATE INDEX claims_deletion ON onedelete.claims (deletion);
CREATE INDEX claims_finished ON onedelete.claims (finished_ms) WHERE finished_ms IS NOT NULL;

-- Microseconds by the database's clock: when a call would come if all came evenly, and before when none may come.
CREATE TABLE onedelete.paces (
    tenant text COLLATE "C" NOT NULL,
    connection text COLLATE "C" NOT NULL,
    next_us bigint NOT NULL,
    held_us bigint NOT NULL,
    PRIMARY KEY (tenant, connection)
) WITH (fillfactor = 50);
