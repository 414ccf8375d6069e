-- window_time is a millisecond before the window's end, and the bounds are those of an interval join, whose state ends.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT window_time, max(price) AS price_max
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(happened), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end, window_time
) m ON b.price = m.price_max
WHERE b.happened BETWEEN m.window_time - INTERVAL '9.999' SECOND AND m.window_time + INTERVAL '0.001' SECOND
