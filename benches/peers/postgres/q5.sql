WITH panes AS (
  SELECT auction, date_bin('2 seconds', date_time, 'epoch') AS pane, count(*) AS num
  FROM bid
  GROUP BY auction, pane
), counted AS MATERIALIZED (
  SELECT auction, pane - back * INTERVAL '2 seconds' AS window_start, sum(num) AS num
  FROM panes, generate_series(0, 4) AS r(back)
  GROUP BY auction, window_start
)
SELECT counted.auction, counted.num
FROM counted
JOIN (SELECT window_start, max(num) AS num_max FROM counted GROUP BY window_start) hottest
  ON counted.window_start = hottest.window_start AND counted.num >= hottest.num_max
