-- Kinds of sagas of which only so many go forward at once.

create table amends.saga_bound (
    name text   not null primary key,
    turn bigint not null default 0
);

comment on table  amends.saga_bound is 'Kinds whose sagas are claimed by one worker at a time, so that they can be counted.';
comment on column amends.saga_bound.turn is 'Moves with each claim: a claim that finds it moved since its snapshot has counted wrongly.';
