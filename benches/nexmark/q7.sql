SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT window_end, max(price) AS price_max
  FROM TUMBLE(bid, date_time, INTERVAL '10' SECOND)
  GROUP BY window_start, window_end
) m ON b.price = m.price_max
WHERE b.date_time BETWEEN m.window_end - INTERVAL '10' SECOND AND m.window_end
