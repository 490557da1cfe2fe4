create table if not exists account (
    id    text   primary key,
    cents bigint not null check (cents >= 0)
);

create table if not exists charge (
    key       text        primary key,
    reference uuid,
    account   text,
    cents     bigint,
    status    text        not null check (status in ('charged', 'refused', 'refunded', 'void')),
    code      text,
    asked     integer     not null default 1,
    at        timestamptz not null default clock_timestamp(),
    check (status = 'void' or (reference is not null and account is not null and cents is not null))
);

comment on column charge.key is 'The idempotency key: one charge, however often it is asked for.';
comment on column charge.status is 'void is a tombstone: the refund came before the charge, which will never be taken.';
comment on column charge.asked is 'How often it was asked for; all but the first were repetitions.';
