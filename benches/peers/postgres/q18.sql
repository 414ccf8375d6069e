SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
  SELECT auction, bidder, price, channel, url, date_time, extra,
    row_number() OVER (
      PARTITION BY bidder, auction
      ORDER BY date_time DESC
    ) AS n
  FROM bid
) q
WHERE n <= 1
