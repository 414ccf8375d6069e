CREATE TABLE events (
  event_type INT,
  p_id BIGINT, p_name STRING, p_email_address STRING, p_credit_card STRING, p_city STRING, p_state STRING,
  p_date_time TIMESTAMP(3), p_extra STRING,
  a_id BIGINT, a_item_name STRING, a_description STRING, a_initial_bid BIGINT, a_reserve BIGINT,
  a_date_time TIMESTAMP(3), a_expires TIMESTAMP(3), a_seller BIGINT, a_category BIGINT, a_extra STRING,
  b_auction BIGINT, b_bidder BIGINT, b_price BIGINT, b_channel STRING, b_url STRING,
  b_date_time TIMESTAMP(3), b_extra STRING,
  happened AS CASE event_type WHEN 0 THEN p_date_time WHEN 1 THEN a_date_time ELSE b_date_time END,
  WATERMARK FOR happened AS happened - INTERVAL '0.001' SECOND
) WITH ('connector' = 'tributary-events', 'path' = '${path}', 'limit' = '${limit}');

CREATE VIEW person AS SELECT p_id AS id, p_name AS name, p_email_address AS email_address,
  p_credit_card AS credit_card, p_city AS city, p_state AS state, p_date_time AS date_time, p_extra AS extra, happened
FROM events WHERE event_type = 0;

CREATE VIEW auction AS SELECT a_id AS id, a_item_name AS item_name, a_description AS description,
  a_initial_bid AS initial_bid, a_reserve AS reserve, a_date_time AS date_time, a_expires AS expires,
  a_seller AS seller, a_category AS category, a_extra AS extra, happened
FROM events WHERE event_type = 1;

CREATE VIEW bid AS SELECT b_auction AS auction, b_bidder AS bidder, b_price AS price, b_channel AS channel,
  b_url AS url, b_date_time AS date_time, b_extra AS extra, happened
FROM events WHERE event_type = 2;
