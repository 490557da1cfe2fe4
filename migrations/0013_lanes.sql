-- Keys are spread over lanes, lanes over relays; what an operator does about messages that are held.

-- A message's lane follows from its key, so that their number can be changed. The column stays: to drop it would wait for every
-- transaction that has written a message, with all others behind it; and relays of before, which read it, go on until they are replaced.
comment on column amends.outbox.lane is 'Not used any more.';

-- What a long transaction has written is read page by page.
drop index amends.outbox_xid;
create index outbox_xid on amends.outbox (xid, seq);

alter table amends.held_message add column exchange text;
comment on column amends.held_message.exchange is 'Where an operator has sent it instead.';

-- What is due is found however much is held. Keys may be longer than what an index takes, so it has their hashes.
create index held_message_key on amends.held_message (lane, hashtextextended(key, 0), seq);
create index held_message_due on amends.held_message (lane, retry_at) where not parked;

create table amends.layout (
    one        boolean     not null default true primary key check (one),
    lanes      smallint    not null default 1 check (lanes between 1 and 64),
    next_lanes smallint    check (next_lanes between 1 and 64),
    meeting    pg_snapshot,
    paused     boolean     not null default false,
    check ((next_lanes is null) = (meeting is null))
);
insert into amends.layout default values;

comment on table  amends.layout is 'One row: how many lanes the outbox has. See set_lanes, pause and resume.';
comment on column amends.layout.meeting is 'While their number is changed: every lane publishes what this snapshot can see, and no more, before the new ones begin.';

create table amends.relay (
    id         uuid        not null primary key,
    name       text        not null,
    started_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null
);

comment on table amends.relay is 'One row a relay that could publish: they share the lanes.';

-- hashtextextended is what hash partitions use, so it never changes. Messages without a key go by their id.
create function amends.lane_of(key text, id uuid, lanes smallint) returns smallint
language sql immutable parallel safe
return ((hashtextextended(coalesce(key, id::text), 0) & 1073741823) % lanes)::smallint;
comment on function amends.lane_of(text, uuid, smallint) is 'The lane of a message, of so many.';

-- Bumping the epochs stops every relay: none moves a cursor any more that does not know of the meeting. Only then is its snapshot taken, so it
-- sees all that any lane has read.
create function amends.set_lanes(lanes integer) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    layout amends.layout;
begin
    if set_lanes.lanes is null or set_lanes.lanes not between 1 and 64 then
        raise invalid_parameter_value using message = 'there are 1 to 64 lanes';
    elsif current_setting('transaction_isolation') <> 'read committed' then
        raise invalid_transaction_state using message = 'set_lanes needs a transaction that is read committed';
    end if;
    select * into layout from amends.layout for update;
    if layout.meeting is not null then
        raise object_not_in_prerequisite_state using
            message = format('the lanes are just being changed to %s', layout.next_lanes),
            hint = 'Relays must run to finish that; then ask again.';
    elsif layout.lanes = set_lanes.lanes then
        return;
    end if;
    update amends.cursor set epoch = epoch + 1, owner = null, owner_name = null, expires_at = null;
    update amends.layout set next_lanes = set_lanes.lanes, meeting = pg_current_snapshot();
end $$;
comment on function amends.set_lanes(integer) is
    'Changes the number of lanes without loss of order: the old ones first publish what is there.';

-- Whether the new lanes have begun. They start where the old ones met.
create function amends.finish_lanes() returns boolean
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    layout amends.layout;
    start  record;
begin
    select * into layout from amends.layout for update;
    if layout.meeting is null then
        return false;
    end if;
    perform from amends.cursor for update;
    select count(*) as arrived, min(floor) as floor, max(epoch) as epoch, max(system_id) as system_id into start
    from amends.cursor c where c.prev::text = layout.meeting::text and c.pass is null;
    if start.arrived < layout.lanes then
        return false;
    end if;
    delete from amends.cursor;
    insert into amends.cursor (lane, system_id, prev, floor, epoch)
    select lane, start.system_id, layout.meeting, start.floor, start.epoch + 1 from generate_series(0, layout.next_lanes - 1) lane;
    update amends.held_message h set lane = amends.lane_of(h.key, h.id, layout.next_lanes);
    update amends.layout set lanes = next_lanes, next_lanes = null, meeting = null;
    return true;
end $$;
comment on function amends.finish_lanes() is 'For relays: begins with the new lanes, once all old ones have met.';

create or replace function amends.restart_lane(which smallint, cluster bigint) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update amends.outbox set xid = '3' where xid <> '3' and amends.lane_of(key, id, (select lanes from amends.layout)) = which;
    update amends.layout set next_lanes = null, meeting = null where meeting is not null;
    update amends.cursor set system_id = cluster, prev = '1:1:', floor = 0, pass = null, pass_seq = null, pass_floor = null
        where lane = which;
$$;
comment on function amends.restart_lane(smallint, bigint) is
    'For relays, after a dump and restore into another cluster: the old transaction ids mean nothing, so every retained row counts as committed long ago.';

-- As before, but a message's lane follows from its key.
create or replace function amends.drop_outbox_partition(part text, age interval) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    seen  pg_snapshot;
    left_ text;
begin
    execute format($q$
        select pg_current_snapshot(), case
            when exists (select from amends.%1$I where created_at > clock_timestamp() - $1) then 'it is not old enough'
            when exists (
                select from amends.%1$I o cross join amends.layout l
                    left join amends.cursor c on c.lane = amends.lane_of(o.key, o.id, l.lanes)
                where c.lane is null or not pg_visible_in_snapshot(o.xid, c.prev)
            ) then 'not all of it is published'
        end $q$, part) into seen, left_ using age;
    if left_ is not null then
        return left_;
    end if;
    perform set_config('lock_timeout', '200ms', true);
    begin
        execute format('lock table amends.outbox, amends.%I in access exclusive mode', part);
    exception when lock_not_available then
        return 'it is in use';
    end;
    execute format($q$
        select case when exists (
            select from amends.%1$I where xid >= pg_snapshot_xmax($1)
            union all
            select from amends.%1$I where xid in (select pg_snapshot_xip($1))
        ) then 'rows have come to it' end $q$, part) into left_ using seen;
    if left_ is null then
        execute format('drop table amends.%I', part);
    end if;
    return left_;
end $$;
