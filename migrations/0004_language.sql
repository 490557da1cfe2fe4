-- Priorities, parents and causes of parking; and functions by which every language can publish, start, signal and answer.

alter table amends.saga
    add priority  smallint not null default 0 check (priority between -1 and 1),
    add parent    uuid,
    add parked_as uuid;

comment on column amends.saga.priority is 'Of those that are due, 1 is claimed before 0 and 0 before -1; those that compensate come before all.';
comment on column amends.saga.parent is 'The saga that started it as one of its steps, and is made due when it ends.';
comment on column amends.saga.parked_as is 'Why it is parked: the same for all sagas that are stuck in the same way.';

-- A claim scans each priority from its remembered wake_at.
drop index amends.saga_due;
create index saga_due on amends.saga (name, version, status, priority, wake_at)
    where owner is null and wake_at is not null;
drop index amends.saga_parked;
create index saga_parked on amends.saga (parked_as, id) where status = 'parked';

create table amends.definition (
    fingerprint   uuid        not null primary key,
    name          text        not null,
    version       integer     not null check (version > 0),
    definition    json        not null,
    registered_at timestamptz not null default clock_timestamp()
);

comment on table amends.definition is 'What workers can run: for those who start sagas in SQL, and for people who look at them.';

create index definition_newest on amends.definition (name, version, registered_at);

-- A UUIDv7 of this moment (RFC 9562). Its time part chooses the partition that holds its rows.
create function amends.uuid_v7() returns uuid
language sql volatile parallel safe security invoker set search_path = pg_catalog, pg_temp as $$
    select (lpad(to_hex(floor(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid;
$$;
comment on function amends.uuid_v7() is 'A new UUIDv7: the id of a saga or a message.';

-- The limits of amends: 1 MiB of text, 100 levels. What a worker could not read must not get into a journal.
create function amends.storable(value jsonb, what text) returns jsonb
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp as $$
begin
    if octet_length(value::text) > 1048576 then
        raise invalid_parameter_value using
            message = format('%s is %s bytes of JSON and the limit is 1048576', what, octet_length(value::text)),
            hint = 'Store the bulk elsewhere and pass a reference.';
    end if;
    -- Level 0 is the value itself. `strict`, because `lax` looks into arrays by itself.
    if jsonb_path_exists(value, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")') then
        raise invalid_parameter_value using message = format('%s is nested deeper than 100 levels', what);
    end if;
    return coalesce(value, 'null');
end $$;
comment on function amends.storable(jsonb, text) is 'The value, if amends can hold it: at most 1 MiB of text, at most 100 levels deep.';

-- Publishes a message, if and only if the transaction commits. Messages of one key are first delivered in the order of their
-- commits, provided that their producers hold a common lock until they commit, as updating the aggregate's row does.
-- `xid` and `seq` are the database's own to give.
create function amends.publish(
    topic text, payload jsonb, key text default null, name text default null, headers jsonb default '{}',
    id uuid default amends.uuid_v7()
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
    if publish.topic is null or publish.id is null then
        raise null_value_not_allowed using message = 'a message needs a topic and an id';
    end if;
    if jsonb_typeof(publish.headers) is distinct from 'object'
        or jsonb_path_exists(publish.headers, '$.* ? (@.type() != "string")') then
        raise invalid_parameter_value using message = 'the headers of a message are a JSON object of texts';
    end if;
    insert into amends.outbox (id, key, topic, name, headers, payload)
    values (publish.id, publish.key, publish.topic, coalesce(publish.name, publish.topic), publish.headers::json,
        convert_to(amends.storable(publish.payload, 'the payload')::text, 'UTF8'));
    return publish.id;
end $$;
comment on function amends.publish(text, jsonb, text, text, jsonb, uuid) is
    'Publishes a message through the outbox, in this transaction. name defaults to the topic; headers is an object of texts. Returns the message''s id.';

-- Everybody writes to a journal through the same door: the next sequence number, or try again. The end of a saga is an append
-- too. So the number is read first and the status after it: if the saga ends between the two, the number is taken.
create function amends.append_event(saga uuid, event jsonb, when_parked text, otherwise text) returns text
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    next   integer;
    status text;
begin
    loop
        select coalesce(max(j.seq), 0) + 1 into next from amends.journal j where j.saga_id = append_event.saga;
        select s.status into status from amends.saga s where s.id = append_event.saga;
        if not found then
            return 'unknown';
        elsif status in ('completed', 'compensated') then
            return 'ended';
        end if;
        -- Waits for whoever is about to write the same number. The writer of no worker, so nobody takes the row for its own.
        insert into amends.journal (saga_id, seq, writer, nonce, events)
        values (append_event.saga, next, '00000000-0000-0000-0000-000000000000', (random() * 9e18)::bigint,
            jsonb_build_array(event)::json)
        on conflict do nothing;
        exit when found;
    end loop;
    update amends.saga s set
        wake_at = clock_timestamp(),
        status = coalesce(case when s.status = 'parked' then when_parked else otherwise end, s.status),
        parked_as = case when s.status = 'parked' and when_parked <> 'parked' then null else s.parked_as end
    where s.id = append_event.saga;
    return 'appended';
end $$;
comment on function amends.append_event(uuid, jsonb, text, text) is
    'Appends an event to a saga''s journal and makes the saga due. Its status becomes when_parked if it is parked, otherwise the last argument; null leaves it. Returns appended, ended or unknown. Use signal, reply and cancel_saga instead.';

create function amends.append_from_outside(saga uuid, event jsonb, when_parked text, otherwise text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
    case amends.append_event(saga, event, when_parked, otherwise)
        when 'appended' then null;
        when 'unknown' then
            raise no_data_found using message = format('there is no saga %s', coalesce(saga::text, 'null'));
        else
            raise object_not_in_prerequisite_state using
                message = format('saga %s has ended', saga), hint = 'What has ended takes no signal and cannot be cancelled.';
    end case;
end $$;
comment on function amends.append_from_outside(uuid, jsonb, text, text) is
    'As append_event; raises no_data_found if there is no such saga, and object_not_in_prerequisite_state if it has ended.';

-- The cause in the newest record of a parking, such as {"in_doubt": {"step": "charge"}}.
create function amends.park_reason(saga uuid) returns json
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
    select e.event -> 'parked' -> 'reason'
    from amends.journal j cross join json_array_elements(j.events) with ordinality as e(event, position)
    where j.saga_id = park_reason.saga and e.event -> 'parked' is not null
    order by j.seq desc, e.position desc limit 1;
$$;
comment on function amends.park_reason(uuid) is 'Why a saga is parked, or was last; null if it never was.';

-- A parked saga stays parked: a signal is not what it waits for, and is kept.
create function amends.signal(saga uuid, step text, payload jsonb, id uuid default gen_random_uuid()) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
    if signal.step is null or signal.id is null then
        raise null_value_not_allowed using message = 'a signal needs a step and an id';
    end if;
    perform amends.append_from_outside(signal.saga, jsonb_build_object('signalled', jsonb_build_object(
        'id', signal.id, 'step', signal.step, 'payload', amends.storable(signal.payload, 'the payload'))), null, null);
end $$;
comment on function amends.signal(uuid, text, jsonb, uuid) is
    'Sends a signal to a step of a saga, which may not have begun to wait for it yet. The same id counts once.';

-- Going on killed the workers of a saga in a crash loop, and going back may not. Parked for another reason it stays parked until
-- an operator sends it on.
create function amends.cancel_saga(saga uuid, reason text, id uuid default gen_random_uuid()) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
    if cancel_saga.id is null then
        raise null_value_not_allowed using message = 'a request to cancel needs an id';
    end if;
    perform amends.append_from_outside(cancel_saga.saga, jsonb_build_object('cancelled', jsonb_build_object(
        'id', cancel_saga.id, 'reason', left(coalesce(cancel_saga.reason, ''), 2000))),
        case when amends.park_reason(cancel_saga.saga) -> 'crash_loop' is not null then 'compensating' else 'parked' end,
        'compensating');
end $$;
comment on function amends.cancel_saga(uuid, text, uuid) is
    'Asks for a saga to be undone. Past its pivot it goes on to its end all the same. The same id counts once.';

-- What a saga is parked over may be settled by a late answer. The worker finds out which way it goes, and parks it again if it
-- goes neither.
create function amends.reply(saga uuid, step text, undo boolean, attempt integer, answer jsonb, id uuid) returns text
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    rejected jsonb := reply.answer -> 'rejected';
    parked   json  := amends.park_reason(reply.saga);
    settles  boolean := reply.step = case when reply.undo then parked -> 'compensation_stuck' ->> 'step'
        else coalesce(parked -> 'in_doubt' ->> 'step', parked -> 'forward_stuck' ->> 'step') end;
begin
    if reply.step is null or reply.undo is null or reply.attempt is null or reply.id is null then
        raise null_value_not_allowed using message = 'a reply needs step, undo, attempt and id';
    elsif reply.attempt < 1 then
        raise invalid_parameter_value using message = format('attempts are counted from 1, not %s', reply.attempt);
    end if;
    -- A worker leaves a saga alone that has an event which it does not understand.
    if jsonb_typeof(reply.answer) is distinct from 'object'
        or (select count(*) from jsonb_object_keys(reply.answer)) <> 1
        or not (reply.answer ? 'done' or coalesce(jsonb_typeof(rejected -> 'code') = 'string'
            and jsonb_typeof(coalesce(rejected -> 'message', '""')) = 'string', false)) then
        raise invalid_parameter_value using
            message = 'an answer is {"done": …} or {"rejected": {"code": "…", "message": "…"}}';
    end if;
    return amends.append_event(reply.saga, jsonb_build_object('replied', jsonb_build_object(
        'id', reply.id, 'step', reply.step, 'undo', reply.undo, 'attempt', reply.attempt,
        'answer', amends.storable(reply.answer, 'the answer'))), case when settles then 'running' end, null);
end $$;
comment on function amends.reply(uuid, text, boolean, integer, jsonb, uuid) is
    'Answers an attempt at a request step, or with undo at its compensation: {"done": output} or {"rejected": {"code", "message"}}. The same id counts once. Returns appended, ended (the saga takes no answer any more) or unknown.';

create function amends.start_saga(
    name text, key text, input jsonb, version integer default null, id uuid default amends.uuid_v7()
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    newest   amends.definition;
    existing uuid;
    is_same  boolean;
begin
    if start_saga.id is null or substr(start_saga.id::text, 15, 1) <> '7' then
        raise invalid_parameter_value using
            message = 'the id of a saga is a UUIDv7', hint = 'Leave it out, or use amends.uuid_v7().';
    end if;
    select d.* into newest from amends.definition d
    where d.name = start_saga.name and d.version = coalesce(start_saga.version, d.version)
    order by d.version desc, d.registered_at desc limit 1;
    if not found then
        raise undefined_object using
            message = format('no saga %s%s is known here', start_saga.name, ' of version ' || start_saga.version),
            hint = 'The saga''s definition must be in amends.definition.';
    end if;
    if start_saga.key is not null then
        insert into amends.saga_key (name, key, saga_id) values (start_saga.name, start_saga.key, start_saga.id)
        on conflict do nothing;
        if not found then
            select k.saga_id, s.input::jsonb = amends.storable(start_saga.input, 'the input') into existing, is_same
            from amends.saga_key k left join amends.saga s on s.id = k.saga_id
            where k.name = start_saga.name and k.key = start_saga.key;
            if not found then
                raise serialization_failure using message = format('key %s has just been given up; try again', start_saga.key);
            elsif not is_same then
                raise unique_violation using
                    message = format('saga %s was started with key %s of %s and another input',
                        existing, start_saga.key, start_saga.name);
            end if;
            -- The saga may be gone while its key is still kept.
            return existing;
        end if;
    end if;
    insert into amends.saga (id, name, version, fingerprint, key, input)
    values (start_saga.id, newest.name, newest.version, newest.fingerprint, start_saga.key,
        amends.storable(start_saga.input, 'the input')::json);
    return start_saga.id;
end $$;
comment on function amends.start_saga(text, text, jsonb, integer, uuid) is
    'Starts a saga in this transaction, of the newest known version unless one is given. The same key and an equal input return the saga that is there; another input raises unique_violation.';
