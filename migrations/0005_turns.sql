-- Semantic locks, and sagas that start by themselves.

alter table amends.saga add lock text;
comment on column amends.saga.lock is 'Of the sagas of one name with the same lock one runs at a time, from its first step to its end.';

-- Who waits for a lock, in the order of the starts. Sagas without one are not in it.
create index saga_in_line on amends.saga (name, lock, id) where lock is not null and ended_at is null;

create table amends.saga_lock (
    name    text        not null,
    key     text        not null,
    saga_id uuid        not null,
    since   timestamptz not null default clock_timestamp(),
    primary key (name, key)
);

comment on table amends.saga_lock is 'Who holds a lock. Whoever has ended holds none, so that nothing need be deleted at an end.';

create table amends.schedule (
    name      text        not null primary key,
    timetable text        not null,
    next_at   timestamptz not null
);

comment on table  amends.schedule is 'When a saga starts by itself next; moving it is in the transaction of the start, so it starts once.';
comment on column amends.schedule.timetable is 'The text of the schedule that next_at comes from.';
