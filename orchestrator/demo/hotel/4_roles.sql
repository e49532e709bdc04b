-- Two credentials, apart: one that can only read, one that can write rows and nothing else, and only in the tables
-- that configs/promotion.yaml names.
CREATE ROLE mirror_reader LOGIN NOINHERIT BYPASSRLS CONNECTION LIMIT 8;
GRANT USAGE ON SCHEMA hotel TO mirror_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA hotel TO mirror_reader;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA hotel TO mirror_reader;
ALTER ROLE mirror_reader SET default_transaction_read_only = on;

CREATE ROLE promoter LOGIN NOINHERIT CONNECTION LIMIT 4;
GRANT USAGE ON SCHEMA hotel TO promoter;
GRANT SELECT ON ALL TABLES IN SCHEMA hotel TO promoter;
GRANT INSERT, UPDATE, DELETE ON hotel.rooms, hotel.rates, hotel.guests, hotel.reservations, hotel.stays, hotel.payments,
    hotel.housekeeping_tasks, hotel.maintenance_windows, hotel.suppliers, hotel.invoices, hotel.reviews TO promoter;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA hotel TO promoter;

-- Migrations alone run as this role, which owns what they alter; the promoter may become it and inherits none of it.
CREATE ROLE migrator NOLOGIN;
GRANT migrator TO promoter;
GRANT USAGE, CREATE ON SCHEMA hotel TO migrator;
DO $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN
        SELECT oid FROM pg_class WHERE relnamespace = 'hotel'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO migrator', relation);
    END LOOP;
END
$$;
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA hotel GRANT SELECT ON TABLES TO mirror_reader, promoter;
ALTER DEFAULT PRIVILEGES FOR ROLE migrator IN SCHEMA hotel GRANT SELECT ON SEQUENCES TO mirror_reader;
