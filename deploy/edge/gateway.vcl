# How the edge reaches the gateway, and when it takes it to be gone. Whoever starts the edge fills in where that is (run.sh).
backend gateway {
    .host = "@HOST@"; .port = "@PORT@"; .first_byte_timeout = 5s;
    .probe = { .url = "/healthz"; .interval = 1s; .timeout = 1s; .threshold = 2; .window = 3; .initial = 2; }
}
