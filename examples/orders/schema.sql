create table if not exists stock (
    sku       text    primary key,
    available integer not null check (available >= 0),
    version   bigint  not null default 0
);

create table if not exists orders (
    id        uuid        primary key,
    account   text        not null,
    sku       text        not null references stock,
    qty       integer     not null check (qty > 0),
    cents     bigint      not null check (cents > 0),
    status    text        not null default 'placed'
              check (status in ('placed', 'accepted', 'shipped', 'completed', 'refused')),
    version   bigint      not null default 1,
    saga      uuid        not null,
    placed_at timestamptz not null default clock_timestamp()
);

create table if not exists reservation (
    order_id uuid    primary key references orders,
    sku      text    not null references stock,
    qty      integer not null check (qty > 0),
    status   text    not null default 'held' check (status in ('held', 'released'))
);

create table if not exists shipment (
    order_id uuid primary key references orders
);

comment on column stock.version  is 'Counts the events about these goods; raised under the row''s lock, so it grows in commit order.';
comment on column orders.version is 'Counts the events about this order.';
