from playwright.sync_api import expect

# A page that is right is so at once, even on a busy machine. Playwright would wait for 5 seconds.
expect.set_options(timeout=30_000)
