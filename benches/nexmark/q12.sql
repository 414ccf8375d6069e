SELECT bidder, count(*) AS bid_count, window_start, window_end
FROM TUMBLE(bid, tributary_time, INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end
