-- Every row follows from its number by hashing alone: the same database each time, on every machine.
CREATE SCHEMA seed;
CREATE FUNCTION seed.pick(n bigint, salt integer, choices integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((hashint8extended(n, salt) & 9007199254740991) % choices)::integer;
CREATE FUNCTION seed.first_name(n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ARRAY['Anna','Björn','Carla','Dmitri','Elena','Farid','Giulia','Henrik','Ines','Jakub','Katarzyna','Liam',
        'Marta','Nadia','Oskar','Priya','Quentin','Rosa','Stefan','Theresa','Ursula','Viktor','Wanda','Xavier',
        'Yasmin','Zoltan','Maeve','Rafael','Saoirse','Tomás','Ulrike','Valentina'])[1 + seed.pick(n, 1, 32)];
CREATE FUNCTION seed.last_name(n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ARRAY['Abernathy','Bergström','Castellano','Drummond','Eriksson','Fitzgerald','Grabowski','Hofmann',
        'Ivanović','Jankowski','Kowalczyk','Lindqvist','Montgomery','Nakamura','O''Sullivan','Petrović','Quinlan',
        'Rodríguez','Schneider','Takahashi','Underwood','Villanueva','Westergaard','Xanthopoulos','Yamamoto',
        'Zimmermann','Achterberg','Blumenthal','Christensen','Delacroix','Engelhardt','Fernández'])[1 + seed.pick(n, 2, 32)];

INSERT INTO hotel.properties VALUES
    ('harbour', 'Harbour Hotel', 'Port Ellery', 5, '+44 20 7946 0101', '{spa,pool,bar,marina}',
     '{"check_in": "15:00", "check_out": "11:00", "city_tax": 3.50}', '1987-05-01'),
    ('riverside', 'Riverside House', 'Alderwick', 4, '+44 20 7946 0202', '{garden,bar}',
     '{"check_in": "14:00", "check_out": "11:00", "city_tax": 2.00}', '1999-04-15'),
    ('hillside', 'Hillside Lodge', 'Upper Fallow', 3, '+44 20 7946 0303', '{sauna,ski-room}',
     '{"check_in": "16:00", "check_out": "10:00", "city_tax": 1.25}', '2008-11-20');

INSERT INTO hotel.room_types
SELECT p.id, t.code, t.name, t.beds, t.price * p.stars / 4.0, t.features
FROM hotel.properties p CROSS JOIN (VALUES
    ('SGL', 'Single', 1, 79.00, ARRAY['desk']),
    ('DBL', 'Double', 2, 119.00, ARRAY['desk', 'bath']),
    ('TWN', 'Twin', 2, 125.00, ARRAY['desk', 'bath']),
    ('FAM', 'Family', 4, 189.00, ARRAY['sofa bed', 'bath', 'fridge']),
    ('STE', 'Suite', 2, 349.00, ARRAY['lounge', 'bath', 'view', 'minibar'])) AS t (code, name, beds, price, features);

-- 450 rooms: 1–150 harbour, 151–300 riverside, 301–450 hillside.
INSERT INTO hotel.rooms (id, property_id, type_code, number, floor, out_of_order, notes)
SELECT n, (ARRAY['harbour', 'riverside', 'hillside'])[1 + (n - 1) / 150],
       (ARRAY['SGL', 'DBL', 'DBL', 'TWN', 'TWN', 'FAM', 'STE'])[1 + seed.pick(n, 3, 7)],
       (100 * (1 + ((n - 1) % 150) / 30) + 1 + (n - 1) % 30)::text, 1 + ((n - 1) % 150) / 30,
       seed.pick(n, 4, 40) = 0, CASE WHEN seed.pick(n, 5, 9) = 0 THEN 'Window faces the courtyard' END
FROM generate_series(1, 450) AS n;

INSERT INTO hotel.rates
SELECT t.property_id, t.code, day::date,
       round(t.base_price * (1 + seed.pick(hashtextextended(t.property_id || t.code, 0) + (day::date - DATE '2000-01-01'), 6, 40) / 100.0), 2),
       'EUR', 1 + seed.pick(day::date - DATE '2000-01-01', 7, 3)
FROM hotel.room_types t,
     generate_series(TIMESTAMP '2024-12-02', TIMESTAMP '2027-06-07', INTERVAL '7 days') AS day;

INSERT INTO hotel.guests (id, first_name, last_name, email, phone, birth_date, passport_number, address, preferences,
                          tags, signature, last_seen_from, referred_by, vip, deleted_at, created_at, updated_at)
SELECT n, seed.first_name(n), seed.last_name(n),
       lower(translate(seed.first_name(n) || '.' || seed.last_name(n), 'öáíéćñ'' ', 'oaiecn')) || n || '@guestmail.example',
       CASE WHEN seed.pick(n, 8, 5) > 0 THEN '+44 7700 ' || lpad((900000 + n)::text, 6, '0') END,
       DATE '1940-01-01' + seed.pick(n, 9, 24000),
       CASE WHEN seed.pick(n, 10, 3) = 0 THEN 'P' || lpad(seed.pick(n, 11, 100000000)::text, 8, '0') || chr(65 + seed.pick(n, 12, 26)) END,
       jsonb_build_object('street', seed.last_name(n + 7) || ' Street ' || (1 + seed.pick(n, 13, 200)),
                          'city', (ARRAY['London', 'Berlin', 'Lyon', 'Porto', 'Oslo', 'Gdańsk'])[1 + seed.pick(n, 14, 6)],
                          'postcode', lpad(seed.pick(n, 15, 99999)::text, 5, '0')),
       CASE seed.pick(n, 16, 4) WHEN 0 THEN '{"pillow": "soft", "floor": "high"}'
           WHEN 1 THEN '{"diet": ["vegetarian"], "newspaper": true}' ELSE '{}' END::jsonb,
       CASE seed.pick(n, 17, 6) WHEN 0 THEN ARRAY['newsletter'] WHEN 1 THEN ARRAY['business', 'invoice by post'] ELSE '{}' END,
       CASE WHEN seed.pick(n, 18, 200) = 0 THEN sha256(int8send(n)) || sha256(int8send(-n)) END,
       ('10.' || seed.pick(n, 19, 250) || '.' || seed.pick(n, 20, 250) || '.' || seed.pick(n, 21, 250))::inet,
       CASE WHEN n > 100 AND seed.pick(n, 22, 12) = 0 THEN 1 + seed.pick(n, 23, (n - 1)::integer) END,
       seed.pick(n, 24, 60) = 0,
       CASE WHEN seed.pick(n, 25, 90) = 0 THEN TIMESTAMPTZ '2026-03-01 09:00+00' + seed.pick(n, 26, 200) * INTERVAL '1 day' END,
       TIMESTAMPTZ '2023-01-01 08:00+00' + n * INTERVAL '25 minutes', TIMESTAMPTZ '2023-01-01 08:00+00' + n * INTERVAL '25 minutes'
FROM generate_series(1, 60000) AS n;

INSERT INTO hotel.staff (id, property_id, name, email, job, salary, shift_starts, manager_id, hired_on)
SELECT n, (ARRAY['harbour', 'riverside', 'hillside'])[1 + (n - 1) % 3], seed.first_name(n + 90000) || ' ' || seed.last_name(n + 90000),
       'staff' || n || '@harbourhotels.example',
       CASE WHEN n <= 3 THEN 'General manager' ELSE (ARRAY['Receptionist', 'Housekeeper', 'Cook', 'Porter', 'Waiter'])[1 + seed.pick(n, 30, 5)] END,
       CASE WHEN n <= 3 THEN 68000 ELSE 24000 + 250 * seed.pick(n, 31, 60) END,
       TIME '06:00' + seed.pick(n, 32, 5) * INTERVAL '2 hours',
       CASE WHEN n > 3 THEN 1 + (n - 1) % 3 END, DATE '2010-01-01' + seed.pick(n, 33, 5800)
FROM generate_series(1, 240) AS n;

-- 230 stays per room, four days apart and at most three nights long: no two overlap.
INSERT INTO hotel.reservations (id, property_id, guest_id, room_id, status, arrival, departure, adults, total_amount,
                                channel, extras, notes, created_at, updated_at)
SELECT id, property_id, guest_id, room_id,
       CASE WHEN fate < 6 THEN 'cancelled'
            WHEN departure <= DATE '2026-11-01' THEN CASE WHEN fate < 8 THEN 'no_show' ELSE 'checked_out' END
            WHEN arrival <= DATE '2026-11-01' THEN 'checked_in'
            WHEN fate < 20 THEN 'tentative' ELSE 'confirmed' END::hotel.reservation_status,
       arrival, departure, 1 + seed.pick(id, 40, 2),
       round((departure - arrival) * price * (1 + seed.pick(id, 41, 30) / 100.0), 2),
       (ARRAY['direct', 'direct', 'agency', 'phone', 'booking site'])[1 + seed.pick(id, 42, 5)],
       CASE seed.pick(id, 43, 8) WHEN 0 THEN '[{"item": "breakfast", "price": 14.50}]'
            WHEN 1 THEN '[{"item": "parking", "price": 9.00}, {"item": "late check-out", "price": 25}]' ELSE '[]' END::jsonb,
       CASE seed.pick(id, 44, 10) WHEN 0 THEN 'Arrives late, hold the room' WHEN 1 THEN 'Quiet room please' END,
       booked, booked
FROM (SELECT n AS id, r.property_id, 1 + seed.pick(n, 45, 60000) AS guest_id, r.id AS room_id, t.base_price AS price,
             seed.pick(n, 46, 100) AS fate, a.arrival, a.arrival + 1 + seed.pick(n, 48, 3) AS departure,
             (a.arrival - 10 - seed.pick(n, 49, 60)) + TIME '10:00' AT TIME ZONE 'UTC' AS booked
      FROM generate_series(1, 103500) AS n
      JOIN hotel.rooms r ON r.id = 1 + (n - 1) % 450
      JOIN hotel.room_types t ON t.property_id = r.property_id AND t.code = r.type_code
      CROSS JOIN LATERAL (SELECT DATE '2024-12-01' + 4 * ((n - 1) / 450) + seed.pick(n, 47, 2) AS arrival) AS a) AS planned;

INSERT INTO hotel.stays
SELECT id, property_id, arrival + TIME '15:00' AT TIME ZONE 'UTC' + seed.pick(id, 50, 300) * INTERVAL '1 minute',
       CASE WHEN status = 'checked_out' THEN departure + TIME '10:00' AT TIME ZONE 'UTC' END,
       1 + seed.pick(id, 51, 2), seed.pick(id, 52, 60) * 0.5
FROM hotel.reservations WHERE status IN ('checked_in', 'checked_out');

INSERT INTO hotel.payments (id, property_id, reservation_id, paid_at, amount, method, card_last4, reference)
SELECT id, property_id, id, created_at + INTERVAL '2 hours', total_amount,
       (ARRAY['card', 'card', 'card', 'cash', 'transfer', 'voucher'])[1 + seed.pick(id, 60, 6)]::hotel.payment_method,
       CASE WHEN seed.pick(id, 60, 6) < 3 THEN lpad(seed.pick(id, 61, 10000)::text, 4, '0') END,
       'HH-' || upper(to_hex(id * 7919))
FROM hotel.reservations WHERE status NOT IN ('cancelled', 'tentative') AND total_amount > 0;

INSERT INTO hotel.housekeeping_tasks (id, property_id, room_id, assigned_to, status, due_on, duration, checklist, done_at)
SELECT id, property_id, room_id, 4 + seed.pick(id, 70, 237),
       CASE WHEN departure < DATE '2026-10-30' THEN 'done' ELSE 'open' END::hotel.task_status, departure,
       (15 + 5 * seed.pick(id, 71, 8)) * INTERVAL '1 minute', '["linen", "towels", "bathroom"]',
       CASE WHEN departure < DATE '2026-10-30' THEN departure + TIME '13:00' AT TIME ZONE 'UTC' END
FROM hotel.reservations WHERE status = 'checked_out' AND seed.pick(id, 72, 2) = 0;

INSERT INTO hotel.maintenance_windows (id, property_id, room_id, during, reason)
SELECT r.id, r.property_id, r.id,
       tstzrange(TIMESTAMPTZ '2025-01-01 06:00+00' + r.id * INTERVAL '2 days', TIMESTAMPTZ '2025-01-02 18:00+00' + r.id * INTERVAL '2 days'),
       (ARRAY['Paint', 'Plumbing', 'New carpet'])[1 + seed.pick(r.id, 80, 3)]
FROM hotel.rooms r;

INSERT INTO hotel.suppliers (id, property_id, name, contact, iban, rating)
SELECT n, (ARRAY['harbour', 'riverside', 'hillside'])[1 + (n - 1) % 3],
       (ARRAY['Quayside', 'Millbrook', 'Stonegate', 'Northfield', 'Fallow'])[1 + seed.pick(n, 84, 5)] || (ARRAY[' Linen', ' Foods', ' Energy', ' Wines'])[1 + seed.pick(n, 85, 4)] || ' Ltd ' || n,
       json_build_object('person', seed.first_name(n + 500) || ' ' || seed.last_name(n + 500), 'email', 'sales' || n || '@supplier.example'),
       'GB29NWBK' || lpad((60161331926819 + n)::text, 14, '0'), 1 + seed.pick(n, 86, 40) / 10.0
FROM generate_series(1, 60) AS n;

INSERT INTO hotel.documents (id, property_id, title, media_type, content, uploaded_at)
SELECT md5('document' || n)::uuid, (ARRAY['harbour', 'riverside', 'hillside'])[1 + (n - 1) % 3], 'Invoice scan ' || n,
       'application/pdf', '\x255044462d312e340a'::bytea || sha256(int8send(n)) || sha256(int8send(n + 1)),
       TIMESTAMPTZ '2025-01-01 12:00+00' + n * INTERVAL '1 day'
FROM generate_series(1, 600) AS n;

INSERT INTO hotel.invoices (id, property_id, supplier_id, number, issued_on, due_on, paid, document_id)
SELECT n, s.property_id, s.id, 'R' || to_char(n, 'FM00000'), day, day + 30, day < DATE '2026-09-01',
       CASE WHEN n <= 600 THEN md5('document' || n)::uuid END
FROM generate_series(1, 6000) AS n
JOIN hotel.suppliers s ON s.id = 1 + (n - 1) % 60
CROSS JOIN LATERAL (SELECT DATE '2025-01-01' + seed.pick(n, 90, 690) AS day) AS d;

INSERT INTO hotel.invoice_lines (invoice_id, line_no, description, quantity, unit_price)
SELECT i.id, line, (ARRAY['Towels', 'Flour', 'Electricity', 'Red wine', 'Soap'])[1 + seed.pick(i.id * 10 + line, 91, 5)],
       1 + seed.pick(i.id * 10 + line, 92, 400) / 8.0, 1 + seed.pick(i.id * 10 + line, 93, 5000) / 100.0
FROM hotel.invoices i, generate_series(1, 1 + i.id % 5) AS line;

INSERT INTO hotel.reviews (id, property_id, reservation_id, rating, title, body, aspects, published, written_at)
OVERRIDING SYSTEM VALUE
SELECT row_number() OVER (ORDER BY id), property_id, id, 1 + seed.pick(id, 95, 5),
       (ARRAY['Lovely', 'Fine', 'Too loud', 'Great breakfast'])[1 + seed.pick(id, 96, 4)],
       'We stayed ' || nights || ' nights. ' || (ARRAY['The view was worth it.', 'Friendly people at the desk.', 'The lift was slow.'])[1 + seed.pick(id, 97, 3)],
       ARRAY[1 + seed.pick(id, 98, 5), 1 + seed.pick(id, 99, 5), 1 + seed.pick(id, 100, 5)]::smallint[],
       seed.pick(id, 101, 4) > 0, departure + TIME '19:00' AT TIME ZONE 'UTC'
FROM hotel.reservations WHERE status = 'checked_out' AND seed.pick(id, 102, 4) = 0;

INSERT INTO hotel.reservation_history (property_id, reservation_id, old_status, new_status, changed_by, changed_at)
SELECT property_id, id, 'tentative', status, 'front desk', created_at + INTERVAL '1 day'
FROM hotel.reservations WHERE seed.pick(id, 103, 10) = 0;

SELECT setval(pg_get_serial_sequence('hotel.' || t, 'id'), m)
FROM (VALUES ('rooms', (SELECT max(id) FROM hotel.rooms)), ('guests', (SELECT max(id) FROM hotel.guests)),
             ('staff', (SELECT max(id) FROM hotel.staff)), ('reservations', (SELECT max(id) FROM hotel.reservations)),
             ('payments', (SELECT max(id) FROM hotel.payments)),
             ('housekeeping_tasks', (SELECT max(id) FROM hotel.housekeeping_tasks)),
             ('maintenance_windows', (SELECT max(id) FROM hotel.maintenance_windows)),
             ('suppliers', (SELECT max(id) FROM hotel.suppliers)), ('invoices', (SELECT max(id) FROM hotel.invoices)),
             ('reviews', (SELECT max(id) FROM hotel.reviews))) AS s (t, m);
DROP SCHEMA seed CASCADE;
