-- A message id that comes again with another body is a fault of whoever sent it, and must not be taken for a copy.

alter table amends.inbox add column body uuid;

comment on column amends.inbox.body is 'A hash of type and payload. Null for what was handled before there was this column.';
