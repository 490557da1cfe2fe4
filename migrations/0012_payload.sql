-- Payloads that are too large for a message, and the outbox as Debezium's event router reads it.

create table amends.payload (
    key       text        not null primary key,
    payload   bytea       not null,
    stored_at timestamptz not null default clock_timestamp()
);

-- What was compressed or encrypted shrinks no more.
alter table amends.payload alter column payload set storage external;

create index payload_stored on amends.payload (stored_at);

comment on table  amends.payload is 'Payloads of messages that carry a claim check: the key is the SHA-256 of the payload.';
comment on column amends.payload.stored_at is 'When it was last put here: its retention runs from then.';

-- The columns that Debezium's outbox event router looks for by default, and the rest of what a message has.
create view amends.debezium_outbox as
    select
        o.id,
        coalesce(substring(o.topic from '^(.*)\.[^.]*$'), o.topic) as aggregatetype,
        coalesce(o.key, o.id::text)                               as aggregateid,
        o.name                                                    as type,
        o.payload,
        o.created_at                                              as timestamp,
        'traceparent=' || (o.headers ->> 'traceparent')           as tracingspancontext,
        o.content_type,
        o.headers,
        o.topic,
        o.seq
    from amends.outbox o;

comment on view amends.debezium_outbox is
    'The outbox in the columns of Debezium''s outbox event router. A view has no WAL: for tools that query, and for the initial copy.';

-- What no broker could take must not get into the outbox, in whatever language it is published: AMQP has 255 bytes for a name, and
-- all properties must fit into one frame. The library is stricter, and says more. Rows that are there already are not looked at.
alter table amends.outbox add constraint outbox_fits check (
    octet_length(topic) <= 255 and octet_length(name) <= 255 and octet_length(content_type) <= 255
    and octet_length(headers::text) + coalesce(octet_length(key), 0) <= 98304
) not valid;
