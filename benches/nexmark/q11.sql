SELECT bidder, count(*) AS bid_count, window_start, window_end
FROM SESSION(bid, date_time, bidder, INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end
