-- Keys, indexes, triggers and views, after the rows: much faster than before them.
ALTER TABLE hotel.room_types ADD FOREIGN KEY (property_id) REFERENCES hotel.properties;
ALTER TABLE hotel.rooms ADD FOREIGN KEY (property_id, type_code) REFERENCES hotel.room_types;
ALTER TABLE hotel.rates ADD FOREIGN KEY (property_id, type_code) REFERENCES hotel.room_types;
ALTER TABLE hotel.guests ADD FOREIGN KEY (referred_by) REFERENCES hotel.guests ON DELETE SET NULL;
ALTER TABLE hotel.staff ADD FOREIGN KEY (property_id) REFERENCES hotel.properties;
ALTER TABLE hotel.staff ADD FOREIGN KEY (manager_id) REFERENCES hotel.staff DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE hotel.reservations ADD FOREIGN KEY (property_id) REFERENCES hotel.properties;
ALTER TABLE hotel.reservations ADD FOREIGN KEY (guest_id) REFERENCES hotel.guests;
ALTER TABLE hotel.reservations ADD FOREIGN KEY (room_id) REFERENCES hotel.rooms;
ALTER TABLE hotel.reservation_history ADD FOREIGN KEY (reservation_id) REFERENCES hotel.reservations ON DELETE CASCADE;
ALTER TABLE hotel.stays ADD FOREIGN KEY (reservation_id) REFERENCES hotel.reservations ON DELETE CASCADE;
ALTER TABLE hotel.payments ADD FOREIGN KEY (reservation_id) REFERENCES hotel.reservations
    DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE hotel.housekeeping_tasks ADD FOREIGN KEY (room_id) REFERENCES hotel.rooms;
ALTER TABLE hotel.housekeeping_tasks ADD FOREIGN KEY (assigned_to) REFERENCES hotel.staff ON DELETE SET NULL;
ALTER TABLE hotel.maintenance_windows ADD FOREIGN KEY (room_id) REFERENCES hotel.rooms;
ALTER TABLE hotel.suppliers ADD FOREIGN KEY (property_id) REFERENCES hotel.properties;
ALTER TABLE hotel.invoices ADD FOREIGN KEY (supplier_id) REFERENCES hotel.suppliers;
ALTER TABLE hotel.documents ADD FOREIGN KEY (property_id) REFERENCES hotel.properties;
ALTER TABLE hotel.invoices ADD FOREIGN KEY (document_id) REFERENCES hotel.documents DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE hotel.invoice_lines ADD FOREIGN KEY (invoice_id) REFERENCES hotel.invoices ON DELETE CASCADE;
ALTER TABLE hotel.reviews ADD FOREIGN KEY (reservation_id) REFERENCES hotel.reservations ON DELETE CASCADE;

-- No room is taken twice in one night; cancelled and tentative bookings do not count.
ALTER TABLE hotel.reservations ADD CONSTRAINT reservations_no_double_booking
    EXCLUDE USING gist (occupies WITH &&) WHERE (status IN ('confirmed', 'checked_in', 'checked_out'));

CREATE UNIQUE INDEX guests_email_in_use ON hotel.guests (lower(email)) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX reviews_one_published ON hotel.reviews (reservation_id) WHERE published;
CREATE INDEX guests_name ON hotel.guests (last_name, first_name);
CREATE INDEX guests_referred_by ON hotel.guests (referred_by) WHERE referred_by IS NOT NULL;
CREATE INDEX reservations_arrival ON hotel.reservations (property_id, arrival);
CREATE INDEX reservations_guest ON hotel.reservations (guest_id);
CREATE INDEX reservations_room ON hotel.reservations (room_id);
CREATE INDEX payments_reservation ON hotel.payments (reservation_id);
CREATE INDEX tasks_due ON hotel.housekeeping_tasks (property_id, due_on) WHERE status <> 'done';
CREATE INDEX tasks_room ON hotel.housekeeping_tasks (room_id);
CREATE INDEX maintenance_room ON hotel.maintenance_windows (room_id);
CREATE INDEX invoices_supplier ON hotel.invoices (supplier_id);
CREATE INDEX history_reservation ON hotel.reservation_history (reservation_id);
CREATE INDEX reviews_reservation ON hotel.reviews (reservation_id);

CREATE FUNCTION hotel.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON hotel.reservations FOR EACH ROW EXECUTE FUNCTION hotel.touch();
CREATE TRIGGER touch BEFORE UPDATE ON hotel.guests FOR EACH ROW EXECUTE FUNCTION hotel.touch();

-- Definer's rights: whoever may change a reservation may not write its history.
CREATE FUNCTION hotel.record_status() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO hotel.reservation_history (property_id, reservation_id, old_status, new_status)
    VALUES (NEW.property_id, NEW.id, OLD.status, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER record_status AFTER UPDATE OF status ON hotel.reservations
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION hotel.record_status();

CREATE FUNCTION hotel.check_room_belongs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM hotel.rooms r WHERE r.id = NEW.room_id AND r.property_id = NEW.property_id) THEN
        RAISE EXCEPTION 'room % does not belong to %', NEW.room_id, NEW.property_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_room_belongs BEFORE INSERT OR UPDATE OF room_id, property_id ON hotel.reservations
    FOR EACH ROW EXECUTE FUNCTION hotel.check_room_belongs();

CREATE VIEW hotel.reservation_overview AS
SELECT r.id, r.property_id, p.name AS property, g.full_name AS guest, g.vip, o.number AS room, o.type_code,
       r.status, r.arrival, r.departure, r.nights, r.total_amount, r.currency,
       coalesce(paid.amount, 0) AS paid_amount
FROM hotel.reservations r
JOIN hotel.properties p ON p.id = r.property_id
JOIN hotel.guests g ON g.id = r.guest_id
JOIN hotel.rooms o ON o.id = r.room_id
LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM hotel.payments m WHERE m.reservation_id = r.id) AS paid ON true;

CREATE MATERIALIZED VIEW hotel.monthly_revenue AS
SELECT property_id, date_trunc('month', paid_at AT TIME ZONE 'UTC')::date AS month, sum(amount) AS revenue, count(*) AS payments
FROM hotel.payments GROUP BY 1, 2;
CREATE UNIQUE INDEX monthly_revenue_key ON hotel.monthly_revenue (property_id, month);
