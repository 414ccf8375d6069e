SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT date_bin('10 seconds', date_time, 'epoch') AS window_start, max(price) AS price_max
  FROM bid
  GROUP BY window_start
) m ON b.price = m.price_max
WHERE b.date_time BETWEEN m.window_start AND m.window_start + INTERVAL '10 seconds'
