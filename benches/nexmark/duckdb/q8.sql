SELECT p.id, p.name, p.window_start
FROM (
  SELECT id, name, window_start, window_end
  FROM (
    SELECT *, time_bucket(INTERVAL 10 SECOND, date_time) AS window_start,
      time_bucket(INTERVAL 10 SECOND, date_time) + INTERVAL 10 SECOND AS window_end
    FROM person
  )
  GROUP BY id, name, window_start, window_end
) p
JOIN (
  SELECT seller, window_start, window_end
  FROM (
    SELECT *, time_bucket(INTERVAL 10 SECOND, date_time) AS window_start,
      time_bucket(INTERVAL 10 SECOND, date_time) + INTERVAL 10 SECOND AS window_end
    FROM auction
  )
  GROUP BY seller, window_start, window_end
) a ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end
