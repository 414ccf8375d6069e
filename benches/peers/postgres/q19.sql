SELECT auction, bidder, price, channel, url, date_time, extra, rank_number
FROM (
  SELECT auction, bidder, price, channel, url, date_time, extra,
    row_number() OVER (
      PARTITION BY auction
      ORDER BY price DESC, bidder ASC, channel ASC, url ASC, date_time ASC, extra ASC
    ) AS rank_number
  FROM bid
) q
WHERE rank_number <= 10
