SELECT auction, bidder, price, channel, url, date_time, extra, rank_number
FROM (
  SELECT auction, bidder, price, channel, url, date_time, extra,
    row_number() OVER (
      PARTITION BY auction
      ORDER BY price DESC
    ) AS rank_number
  FROM bid
) q
WHERE rank_number <= 10
