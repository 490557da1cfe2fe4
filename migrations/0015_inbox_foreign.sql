-- Only ids of UUID version 7 tell a time, and so belong to a week. Those of other producers were spread over all of time, where a few
-- of them kept every week to come from getting a partition of its own. They have one at the end of time now.
create table amends.inbox_foreign partition of amends.inbox for values from ('ffffffff-ffff-0000-0000-000000000000') to (maxvalue);

update amends.inbox set message_id = ('ffffffff-ffff' || substr(message_id::text, 14))::uuid
where substr(message_id::text, 15, 1) <> '7';

-- Drops a week of the inbox of which no message was handled after `age`: looked for without a lock, and again under it.
create or replace function amends.drop_inbox_week(week text, age interval) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    is_young constant text := format(
        'select exists (select from amends.%I where handled_at > clock_timestamp() - $1)', 'inbox_' || week);
    found_   boolean;
begin
    execute is_young into found_ using age;
    if found_ then
        return 'it is not old enough';
    end if;
    perform set_config('lock_timeout', '200ms', true);
    execute format('lock table amends.inbox, amends.%I in access exclusive mode', 'inbox_' || week);
    execute is_young into found_ using age;
    if found_ then
        return 'rows have come to it';
    end if;
    execute format('drop table amends.%I', 'inbox_' || week);
    return null;
exception when lock_not_available then
    return 'it is in use';
end $$;
