-- What docs/events.md says of exposures, outcomes and contexts, for a whole log at once.
-- Tables: events, exposures (decoded columns), windows (policy, event_type, bit, ms).
-- Parameters: $lateness_ms, $history_length, $token_types.
WITH
first_events AS (  -- a duplicate has no effect
    SELECT * FROM events
    QUALIFY row_number() OVER (PARTITION BY user_id, event_id ORDER BY partition, "offset") = 1
),
first_exposures AS (
    SELECT * FROM exposures WHERE len(items) > 0
    QUALIFY row_number() OVER (PARTITION BY user_id, request_id ORDER BY partition, "offset") = 1
),
shown AS (  -- one row a place
    SELECT * EXCLUDE items, generate_subscripts(items, 1) AS place, unnest(items).item_id AS item_id
    FROM first_exposures
),
claims AS (  -- an outcome belongs to the exposure it names, or to the latest that waits for it
    SELECT x.partition, x."offset", x.item_id, w.bit, e.ts
    FROM first_events AS e
    JOIN (SELECT DISTINCT * EXCLUDE place FROM shown) AS x USING (user_id, item_id)
    JOIN windows AS w ON w.policy = x.policy AND w.event_type = e.event_type
    WHERE e.ts < x.ts + w.ms
      AND CASE WHEN e.request_id IS NULL THEN x.ts <= e.ts
               ELSE x.request_id = e.request_id AND x.ts - $lateness_ms <= e.ts END
    QUALIFY row_number() OVER (
        PARTITION BY e.partition, e."offset" ORDER BY x.ts DESC, x.partition DESC, x."offset" DESC
    ) = 1
),
labels AS (
    SELECT partition, "offset", item_id, bit_or(bit) AS label FROM claims GROUP BY ALL
),
answers AS (
    SELECT partition, "offset", any_value(user_id) AS user_id, any_value(ts) AS ts,
           list(item_id ORDER BY place) AS items,
           list(coalesce(label, 0) ORDER BY place) AS labels
    FROM shown LEFT JOIN labels USING (partition, "offset", item_id)
    GROUP BY partition, "offset"
),
tokens AS (  -- what a user did, in order
    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY ts, partition, "offset") AS n
    FROM first_events WHERE event_type IN (SELECT unnest($token_types))
),
reached AS (SELECT user_id, ts, max(n) AS n FROM tokens GROUP BY user_id, ts),
contexts AS (  -- the newest tokens strictly before the answer
    SELECT a.partition, a."offset",
           list(t.item_id ORDER BY t.n) AS token_items, list(t.ts ORDER BY t.n) AS token_ts
    FROM answers AS a
    ASOF JOIN reached AS r ON a.user_id = r.user_id AND a.ts > r.ts
    JOIN tokens AS t ON t.user_id = a.user_id
        AND t.n > r.n - $history_length AND t.n <= r.n
    GROUP BY a.partition, a."offset"
)
SELECT partition, "offset", ts, items, labels,
       coalesce(token_items, []) AS token_items, coalesce(token_ts, []) AS token_ts
FROM answers LEFT JOIN contexts USING (partition, "offset")
ORDER BY partition, "offset"
