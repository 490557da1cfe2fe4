-- What a start in Rust can say, a start in SQL can too: priority, lock and trace.

-- With both there, a call without the new arguments would fit either. Grants on it, if there are any, must be given again.
drop function amends.start_saga(text, text, jsonb, integer, uuid);

create function amends.start_saga(
    name text, key text, input jsonb, version integer default null, id uuid default amends.uuid_v7(),
    priority integer default 0, lock text default null, refuse_if_locked boolean default false, trace text default null
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
    newest   amends.definition;
    holder   uuid;
    existing uuid;
    is_same  boolean;
begin
    if start_saga.id is null or substr(start_saga.id::text, 15, 1) <> '7' then
        raise invalid_parameter_value using
            message = 'the id of a saga is a UUIDv7', hint = 'Leave it out, or use amends.uuid_v7().';
    end if;
    if start_saga.priority not between -1 and 1 then
        raise invalid_parameter_value using
            message = format('a priority is 1 (high), 0 (normal) or -1 (low), not %s', start_saga.priority);
    end if;
    select d.* into newest from amends.definition d
    where d.name = start_saga.name and d.version = coalesce(start_saga.version, d.version)
    order by d.version desc, d.registered_at desc limit 1;
    if not found then
        raise undefined_object using
            message = format('no saga %s%s is known here', start_saga.name, ' of version ' || start_saga.version),
            hint = 'The saga''s definition must be in amends.definition.';
    end if;
    if start_saga.refuse_if_locked and start_saga.lock is not null then
        -- Two such starts at once wait for each other, so that the second sees the first: starts in Rust take the same.
        perform pg_advisory_xact_lock(hashtextextended(start_saga.name || chr(1) || start_saga.lock, 0));
        -- A statement of its own: only its snapshot is younger than the wait.
        select s.id into holder from amends.saga s
        where s.name = start_saga.name and s.lock = start_saga.lock and s.ended_at is null
            and s.id <> coalesce((select k.saga_id from amends.saga_key k
                where k.name = start_saga.name and k.key = start_saga.key), start_saga.id)
        order by s.id limit 1;
        if found then
            raise object_in_use using
                message = format('saga %s: %s is locked by saga %s', start_saga.name, start_saga.lock, holder),
                hint = 'Start it when that has ended, or let it wait for its turn with refuse_if_locked => false.';
        end if;
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
    insert into amends.saga (id, name, version, fingerprint, key, input, priority, lock, trace)
    values (start_saga.id, newest.name, newest.version, newest.fingerprint, start_saga.key,
        amends.storable(start_saga.input, 'the input')::json, coalesce(start_saga.priority, 0), start_saga.lock,
        start_saga.trace);
    return start_saga.id;
end $$;
comment on function amends.start_saga(text, text, jsonb, integer, uuid, integer, text, boolean, text) is
    'Starts a saga in this transaction, of the newest known version unless one is given. The same key and an equal input return the saga that is there; another input raises unique_violation. priority is 1, 0 or -1. Of the sagas of one name with the same lock one runs at a time and the others wait for their turn; with refuse_if_locked, the start raises object_in_use instead. trace is a W3C traceparent.';
