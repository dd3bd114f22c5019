-- Run as role postgres where pg_cron is.
select cron.schedule('refresh-mood-by-month', '17 3 * * *', 'refresh materialized view public.mood_by_month');
