-- No keys where the audit looks for a second effect: the inbox alone must prevent it.
create table if not exists received (
    message_id uuid        not null,
    name       text        not null,
    key        text        not null,
    version    bigint      not null,
    at         timestamptz not null default clock_timestamp()
);

create table if not exists parcel (
    order_id uuid    not null,
    sku      text    not null,
    qty      integer not null
);

create table if not exists set_aside (
    sku text   primary key,
    qty bigint not null
);

create table if not exists last_heard (
    key     text   primary key,
    version bigint not null
);

create table if not exists disorder (
    message_id uuid   not null,
    key        text   not null,
    version    bigint not null,
    expected   bigint not null
);

comment on table received is 'Every event that took effect.';
comment on table parcel   is 'What was sent.';
comment on table set_aside is 'What is set aside, by the events heard so far.';
comment on table disorder is 'Events that did not come next in their key.';
