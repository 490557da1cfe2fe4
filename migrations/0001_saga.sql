-- Sagas: head rows for scheduling, journals that are the truth, business keys, workers.

-- The lowest UUIDv7 of a moment: the bound of a partition.
create function amends.uuid_floor(moment timestamptz) returns uuid
language sql immutable strict parallel safe
return (lpad(to_hex(floor(extract(epoch from moment) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

create table amends.saga (
    id          uuid        not null,
    name        text        not null,
    version     integer     not null check (version > 0),
    fingerprint uuid        not null,
    key         text,
    status      text        not null default 'running'
                check (status in ('running', 'compensating', 'parked', 'completed', 'compensated')),
    wake_at     timestamptz default clock_timestamp(),
    owner       uuid,
    started_at  timestamptz not null default clock_timestamp(),
    ended_at    timestamptz,
    trace       text,
    input       json        not null,
    primary key (id)
) partition by range (id);

comment on table  amends.saga is 'One row a saga, for scheduling and for people; the truth is in amends.journal.';
comment on column amends.saga.wake_at is 'When a worker should look at it; null while one does, and when nothing will happen by itself.';
comment on column amends.saga.owner is 'The worker that runs it. Only for efficiency: safety is in the journal''s primary key.';
comment on column amends.saga.trace is 'W3C traceparent of whoever started it.';

-- A step's append writes none of these columns, so that only claims and ends touch the indexes.
create index saga_due on amends.saga (name, version, status, wake_at)
    where owner is null and wake_at is not null;
create index saga_owned on amends.saga (owner, wake_at) where owner is not null;
create index saga_parked on amends.saga (name, id) where status = 'parked';

create table amends.saga_key (
    name       text        not null,
    key        text        not null,
    saga_id    uuid        not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (name, key)
);

comment on table amends.saga_key is 'Business keys: the same key starts the same saga once. Kept longer than the sagas.';

create table amends.journal (
    saga_id uuid        not null,
    seq     integer     not null check (seq > 0),
    writer  uuid        not null,
    nonce   bigint      not null,
    at      timestamptz not null default clock_timestamp(),
    events  json        not null,
    primary key (saga_id, seq)
) partition by range (saga_id);

comment on table  amends.journal is 'Append-only. One row is one append; its primary key is the fence against stale workers.';
comment on column amends.journal.writer is 'With nonce: tells a writer its own row when the answer to its commit was lost.';
comment on column amends.journal.events is 'What became true together.';

create table amends.worker (
    id         uuid        not null primary key,
    name       text        not null,
    started_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null
);

comment on table amends.worker is 'One heartbeat row a worker. After expires_at others adopt its sagas.';

-- Makes the weekly partitions of sagas and journals from now until `ahead` from now. What falls outside of all
-- lands in the default partitions, so that running out of partitions never fails a write.
create function amends.make_saga_partitions(ahead interval) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    week    timestamptz := date_trunc('week', now() at time zone 'UTC') at time zone 'UTC';
    parent  text;
    child   text;
    made    integer := 0;
begin
    while week < now() + ahead loop
        foreach parent in array array['saga', 'journal'] loop
            child := parent || '_' || to_char(week at time zone 'UTC', 'YYYYMMDD');
            if to_regclass('amends.' || child) is null then
                begin
                    execute format('create table amends.%I partition of amends.%I for values from (%L) to (%L)',
                        child, parent, amends.uuid_floor(week), amends.uuid_floor(week + interval '7 days'));
                    made := made + 1;
                exception when check_violation then
                    raise warning 'rows of % are in the default partition already, and stay there', child;
                end;
            end if;
        end loop;
        week := week + interval '7 days';
    end loop;
    return made;
end $$;

create table amends.saga_default partition of amends.saga default;
create table amends.journal_default partition of amends.journal default;
select amends.make_saga_partitions(interval '28 days');
