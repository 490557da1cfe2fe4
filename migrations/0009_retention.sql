-- What is old enough goes: by dropping whole partitions where there are any, and some rows at a time elsewhere.

create index saga_key_created on amends.saga_key (created_at);
create index inbox_handled on amends.inbox (handled_at);

-- Drops a partition of the outbox that every lane's cursor has passed and whose last message is older than `age`. The rows
-- are looked through without a lock; under the lock only those are looked for that came since.
create function amends.drop_outbox_partition(part text, age interval) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    seen  pg_snapshot;
    left_ text;
begin
    execute format($q$
        select pg_current_snapshot(), case
            when exists (select from amends.%1$I where created_at > clock_timestamp() - $1) then 'it is not old enough'
            when exists (
                select from amends.%1$I o where not exists (
                    select from amends.cursor c where c.lane = o.lane and pg_visible_in_snapshot(o.xid, c.prev)
                )
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

-- Drops a week of sagas with their journals, if all have ended and the last did so before `age`.
create function amends.drop_saga_week(week text, age interval) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    left_ text;
begin
    execute format($q$
        select case
            when exists (select from amends.%1$I where ended_at is null) then 'not all of it has ended'
            when exists (select from amends.%1$I where ended_at > clock_timestamp() - $1) then 'it is not old enough'
        end $q$, 'saga_' || week) into left_ using age;
    if left_ is not null then
        return left_;
    end if;
    perform set_config('lock_timeout', '200ms', true);
    begin
        execute format('lock table amends.saga, amends.%I, amends.journal, amends.%I in access exclusive mode',
            'saga_' || week, 'journal_' || week);
    exception when lock_not_available then
        return 'it is in use';
    end;
    -- One that was begun anew meanwhile, because the saga that had started it is undone, shows in the indexes.
    execute format($q$
        select case when exists (select from amends.%1$I where owner is not null)
            or exists (select from amends.%1$I where owner is null and wake_at is not null)
            or exists (select from amends.%1$I where status = 'parked')
            then 'a saga was begun anew' end $q$, 'saga_' || week) into left_;
    if left_ is null then
        execute format('drop table amends.%I', 'saga_' || week);
        execute format('drop table amends.%I', 'journal_' || week);
    end if;
    return left_;
end $$;

-- Drops a week of the inbox of which no message was handled after `age`.
create function amends.drop_inbox_week(week text, age interval) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    left_ text;
begin
    execute format('select $q$it is not old enough$q$ where exists (
        select from amends.%I where handled_at > clock_timestamp() - $1)', 'inbox_' || week) into left_ using age;
    if left_ is null then
        perform set_config('lock_timeout', '200ms', true);
        execute format('drop table amends.%I', 'inbox_' || week);
    end if;
    return left_;
exception when lock_not_available then
    return 'it is in use';
end $$;
