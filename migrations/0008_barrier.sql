-- The barrier: what a participant has done, and undone, for the sagas that ask it.

create table amends.barrier (
    participant text        not null,
    key         text        not null,
    state       text        not null check (state in ('done', 'refused', 'undone')),
    undoing     boolean     not null default false,
    answer      json,
    since       timestamptz not null default clock_timestamp(),
    primary key (participant, key)
);

comment on table  amends.barrier is 'What was done under the idempotency key of a step. Kept longer than any request can come late.';
comment on column amends.barrier.state is 'undone is also a tombstone: it was never done, and must not be done any more. What was refused has nothing to undo.';
comment on column amends.barrier.undoing is 'Whoever asked last for its undoing found it done, and so undoes it.';
comment on column amends.barrier.answer is 'What was answered, so that whoever asks again is answered the same.';

create index barrier_since on amends.barrier (since);
