SELECT r.seller, avg(r.final) AS avg_final
FROM (
  SELECT q.seller, q.final, row_number() OVER (PARTITION BY q.seller ORDER BY q.expires DESC, q.id DESC) AS n
  FROM (
    SELECT a.id, a.seller, a.expires, max(b.price) AS final
    FROM auction a
    JOIN bid b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.seller, a.expires
  ) q
) r
WHERE r.n <= 10
GROUP BY r.seller
