SELECT auction, bidder, price, channel,
  CASE lower(channel)
    WHEN 'apple' THEN '0'
    WHEN 'google' THEN '1'
    WHEN 'facebook' THEN '2'
    WHEN 'baidu' THEN '3'
    ELSE CASE WHEN regexp_matches(url, '&channel_id=') THEN regexp_extract(url, '&channel_id=([^&]*)', 1) END
  END AS channel_id
FROM bid
WHERE CASE WHEN regexp_matches(url, '&channel_id=') THEN regexp_extract(url, '&channel_id=([^&]*)', 1) END IS NOT NULL
  OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')
