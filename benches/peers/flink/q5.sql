SELECT counted.auction, counted.num
FROM (
  SELECT auction, window_start, window_end, count(*) AS num
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(happened), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY auction, window_start, window_end
) counted
JOIN (
  SELECT q.window_start, q.window_end, max(q.num) AS num_max
  FROM (
    SELECT auction, window_start, window_end, count(*) AS num
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(happened), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY auction, window_start, window_end
  ) q
  GROUP BY q.window_start, q.window_end
) hottest
  ON counted.window_start = hottest.window_start
  AND counted.window_end = hottest.window_end
  AND counted.num >= hottest.num_max
