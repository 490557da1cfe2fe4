-- The outbox, the cursor that reads it, and the messages that a broker would not take.

create sequence amends.outbox_seq as bigint cache 1;

-- Rows are never updated. `xid` must be assigned before `seq`, or the cursor could pass a row that it has not seen: so the
-- default of `seq` itself forces the transaction's id first, whatever the order of the columns in a statement.
create table amends.outbox (
    xid          xid8        not null default pg_current_xact_id(),
    seq          bigint      not null default
                 nextval(case when pg_current_xact_id() is not null then 'amends.outbox_seq'::regclass end),
    lane         smallint    not null default 0,
    id           uuid        not null,
    key          text,
    topic        text        not null,
    name         text        not null,
    content_type text        not null default 'application/json',
    headers      json        not null default '{}',
    payload      bytea       not null,
    created_at   timestamptz not null default clock_timestamp(),
    primary key (seq)
) partition by range (seq);

create index outbox_xid on amends.outbox (xid);

comment on table  amends.outbox is 'Messages in the order of their making. Insert with the defaults of xid and seq, never with values of your own.';
comment on column amends.outbox.key is 'Messages of one key are first delivered in commit order; producers of one key hold a common lock until they commit.';
comment on column amends.outbox.lane is 'Which relay cursor reads it.';

create table amends.outbox_default partition of amends.outbox default;

-- Makes the partitions for the next `ahead` rows, in steps of a million. What falls outside lands in the default one.
create function amends.make_outbox_partitions(ahead bigint) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    size    constant bigint := 1000000;
    newest  bigint := (select case when is_called then last_value else 0 end from amends.outbox_seq);
    part    bigint := newest / size;
    made    integer := 0;
begin
    while part * size < newest + ahead loop
        if to_regclass('amends.outbox_' || part) is null then
            begin
                execute format('create table amends.%I partition of amends.outbox for values from (%s) to (%s)',
                    'outbox_' || part, part * size, (part + 1) * size);
                made := made + 1;
            exception when check_violation then
                raise warning 'rows of outbox_% are in the default partition already, and stay there', part;
            end;
        end if;
        part := part + 1;
    end loop;
    return made;
end $$;

select amends.make_outbox_partitions(3000000);

-- One row a lane: what the relay has settled. See DESIGN: snapshot, floor and pass.
create table amends.cursor (
    lane       smallint    not null primary key,
    system_id  bigint      not null,
    prev       pg_snapshot not null,
    floor      bigint      not null default 0,
    pass       pg_snapshot,
    pass_seq   bigint,
    pass_floor bigint,
    moved_at   timestamptz not null default clock_timestamp(),
    owner      uuid,
    owner_name text,
    epoch      bigint      not null default 0,
    expires_at timestamptz,
    check ((pass is null) = (pass_seq is null) and (pass is null) = (pass_floor is null))
);

comment on table  amends.cursor is 'How far each lane of the outbox is published, and which relay reads it.';
comment on column amends.cursor.prev is 'Every row that this snapshot could see is settled.';
comment on column amends.cursor.floor is 'Every row with a transaction at or above the xmax of prev has a higher seq.';
comment on column amends.cursor.pass is 'The snapshot of the pass under way through a backlog, in pages by seq.';
comment on column amends.cursor.system_id is 'The database cluster whose transaction ids these are; elsewhere they mean nothing.';
comment on column amends.cursor.epoch is 'Grows with every change of owner; every move of the cursor is guarded by it.';

-- Messages that the broker did not take, and those of the same key behind them, in order.
create table amends.held_message (
    lane         smallint    not null,
    seq          bigint      not null,
    id           uuid        not null,
    key          text,
    topic        text        not null,
    name         text        not null,
    content_type text        not null,
    headers      json        not null,
    payload      bytea       not null,
    created_at   timestamptz not null,
    held_at      timestamptz not null default clock_timestamp(),
    attempts     integer     not null default 0,
    retry_at     timestamptz not null default clock_timestamp(),
    parked       boolean     not null default false,
    reason       text        not null,
    primary key (lane, seq)
);

comment on table  amends.held_message is 'Not published yet: refused by the broker, or behind one of the same key that was.';
comment on column amends.held_message.parked is 'Waits for an operator.';

-- After a dump and restore into another cluster the old transaction ids mean nothing: every retained row counts as
-- committed long ago, and the lane starts again. Consumers recognise what they have had.
create function amends.restart_lane(which smallint, cluster bigint) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update amends.outbox set xid = '3' where lane = which;
    update amends.cursor set system_id = cluster, prev = '1:1:', floor = 0, pass = null, pass_seq = null, pass_floor = null
        where lane = which;
$$;
