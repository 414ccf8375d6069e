SELECT counted.auction, counted.num
FROM (
  SELECT auction, window_start, window_end, count(*) AS num
  FROM (
    SELECT b.*, s.window_start, s.window_start + INTERVAL 10 SECOND AS window_end
    FROM bid b, LATERAL (
      SELECT time_bucket(INTERVAL 2 SECOND, b.date_time) - n * INTERVAL 2 SECOND AS window_start FROM range(5) r(n)
    ) s
  )
  GROUP BY auction, window_start, window_end
) counted
JOIN (
  SELECT q.window_start, q.window_end, max(q.num) AS num_max
  FROM (
    SELECT auction, window_start, window_end, count(*) AS num
    FROM (
    SELECT b.*, s.window_start, s.window_start + INTERVAL 10 SECOND AS window_end
    FROM bid b, LATERAL (
      SELECT time_bucket(INTERVAL 2 SECOND, b.date_time) - n * INTERVAL 2 SECOND AS window_start FROM range(5) r(n)
    ) s
  )
    GROUP BY auction, window_start, window_end
  ) q
  GROUP BY q.window_start, q.window_end
) hottest
  ON counted.window_start = hottest.window_start
  AND counted.window_end = hottest.window_end
  AND counted.num >= hottest.num_max
