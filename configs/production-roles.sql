-- The two credentials a production of your own needs, and nothing beyond them: one reads, one writes approved rows.
-- Run it as the owner of the tables (or a superuser), once for each schema of the application, then set the passwords
-- with \password and put them into the files that configs/orchestrator.yaml names:
--   psql -v schema=app -v database=shop -f configs/production-roles.sql
-- Neither needs to be a superuser, to replicate, or any extension. On a standby run it on its primary.

-- production.mirror: takes snapshots, compares before a promote. BYPASSRLS only where tables have row security
-- (a superuser must give it); pg_hba.conf must admit it from where containers come from.
SELECT 'CREATE ROLE mirror_reader LOGIN NOINHERIT CONNECTION LIMIT 8'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mirror_reader') \gexec
ALTER ROLE mirror_reader SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE :"database" TO mirror_reader;
GRANT USAGE ON SCHEMA :"schema" TO mirror_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO mirror_reader;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA :"schema" TO mirror_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA :"schema" GRANT SELECT ON TABLES TO mirror_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA :"schema" GRANT SELECT ON SEQUENCES TO mirror_reader;

-- production.primary: opened only by a promote, a revert, and what `doctor` looks at. Add one line for each table that
-- configs/promotion.yaml names; `orchestrator doctor` says which rights are missing and which are too many.
SELECT 'CREATE ROLE promoter LOGIN NOINHERIT CONNECTION LIMIT 4'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'promoter') \gexec
GRANT CONNECT ON DATABASE :"database" TO promoter;
GRANT USAGE ON SCHEMA :"schema" TO promoter;
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO promoter;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO promoter;
-- GRANT INSERT, UPDATE, DELETE ON :"schema".orders TO promoter;
