"""The tasks of the made history: what each does, how often, for how long, and how it fails."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

WORKERS = {
    "default": ("celery@worker-1", "celery@worker-2"),
    "mail": ("celery@mail-1",),
    "media": ("celery@media-1",),
    "imports": ("celery@worker-3",),
}
"""The workers of each queue."""

TIMEOUT = "TimeoutError: {host} ({ip}:5432) did not answer within 30 s"


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, and what its runs are like.

    Texts may have the placeholders of `making.Values`, such as {order}.
    """

    name: str
    description: str
    seconds: float = 1.0
    """The duration of most runs."""
    queue: str = "default"
    uid: str = ""
    every: timedelta | None = None
    """The interval of its schedule, if it has one."""
    at: timedelta | None = None
    """The time of the day in UTC at which it is sent, if it is sent once a day."""
    weight: float = 0.0
    """The number of its runs, compared with those of others that requests send."""
    failures: float = 0.004
    """The share of runs that fail."""
    warnings: float = 0.0
    """The share of runs that log a warning."""
    errors: tuple[str, ...] = (TIMEOUT,)
    lines: tuple[str, ...] = ("Done in one step",)
    warning: str = "{host} answers slowly: {number} ms"
    kwargs: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """Return when it is due, in words, or "" without a schedule."""
        if self.at is not None:
            minutes = int(self.at / MINUTE)
            return f"at {minutes // 60:02}:{minutes % 60:02} every day (UTC)"
        if self.every is None:
            return ""
        if self.every % HOUR:
            return f"every {self.every // MINUTE} minutes"
        return "every hour" if self.every == HOUR else f"every {self.every // HOUR} hours"


def _daily(
    name: str, hour: int, minute: int, description: str, seconds: float, queue: str = "default",
    **fields: Any,  # noqa: ANN401 - of Kind
) -> Kind:  # fmt: skip
    at = timedelta(hours=hour, minutes=minute)
    return Kind(name, description, seconds, queue, at=at, **fields)


CHARGE = Kind(
    "billing.charge_card", "Charge the card of an order.", 1.4, weight=110,
    errors=(
        "PaymentError: The bank refuses order {order}: card expired",
        "PaymentError: The bank refuses order {order}: limit of {number} EUR exceeded",
        "ConnectionError: {ip}:8443 closed the connection after {number} bytes",
    ),
    lines=("Charging the card of order {order}", "The bank accepts the payment {uuid}"),
    kwargs=(("order", "{order}"), ("currency", "EUR")),
)  # fmt: skip
"""The task that has been failing for three hours."""

REPORT = _daily(
    "reports.nightly_report", 2, 0, "Add up the figures of the day before.", 410.0, failures=0.0,
    errors=("OSError: [Errno 28] No space left on device: '/var/reports/{day}.parquet'",),
    lines=("Read {number} orders", "Added up 14 shops", "Wrote /var/reports/{day}.parquet"),
)  # fmt: skip
"""The nightly job, which failed last night."""

REINDEX = Kind(
    "search.reindex_products", "Bring the search index of all products up to date.", 38.0,
    every=HOUR, lines=("Indexed {number} products", "Removed 3 products that are gone"),
)  # fmt: skip
"""The task that takes longer today than it used to."""

SYNC = Kind(
    "ldap.sync_directory", "Fetch the users of a directory.", 6.0, uid="eu", every=30 * MINUTE,
    failures=0.01, errors=("LDAPServerDown: {host}:636 cannot be reached ({number} ms)",),
    lines=("Connected to {host}", "Fetched 250 users"),
)  # fmt: skip
"""The task that is retried, and has been failing for hours."""

IMPORT = Kind(
    "imports.read_supplier_file", "Read the prices and stocks of a supplier.", 95.0, "imports",
    weight=8, failures=0.02, warnings=0.1,
    errors=("ValueError: Line {number} of {supplier}.csv has 11 columns instead of 12",),
    lines=("Read {supplier}.csv", "Changed {number} prices"),
    warning="{number} articles of {supplier} are unknown",
    kwargs=(("supplier", "{supplier}"),),
)  # fmt: skip
"""The task whose worker has gone silent."""

THUMBNAILS = Kind(
    "media.make_thumbnails", "Make the small pictures of a product.", 4.0, "media", weight=34,
    lines=("Made 6 pictures of product {number}",), kwargs=(("product", "{number}"),),
)  # fmt: skip
VIDEO = Kind(
    "media.transcode_video", "Make the versions of a video.", 210.0, "media", weight=5,
    failures=0.03, errors=("RuntimeError: ffmpeg ended with exit code 1 at frame {number}",),
    kwargs=(("video", "{uuid}"),),
)  # fmt: skip
"""The tasks whose queue is stuck."""

STATEMENT = Kind(
    "reports.yearly_statement", "Write the statement of a year, for the tax office.", 3100.0,
    weight=0.1, lines=("Read {number} bookings",),
)  # fmt: skip
NEWSLETTER = Kind(
    "mail.send_newsletter", "Send a newsletter to all who want it.", 160.0, "mail", weight=2,
    lines=("Sent {number} mails",), kwargs=(("newsletter", "{number}"),),
)  # fmt: skip
"""The tasks that are running for long, and say how far they are."""

CLOSE_DAY = _daily(
    "orders.close_day", 0, 30, "Close the books of the day: one task for each shop, and a sum.",
    0.6, lines=("Sent 6 tasks and their chord",),
)  # fmt: skip
CLOSE_SHOP = Kind("orders.close_shop", "Close the books of one shop.", 21.0)
SUM_UP = Kind("orders.sum_up_day", "Add up the books of all shops.", 3.0)
"""The family of a chord."""

INVOICE = Kind(
    "mail.send_invoice", "Send the invoice of an order.", 0.7, "mail",
    lines=("Sent the invoice of order {order} to {mail}",), kwargs=(("order", "{order}"),),
)  # fmt: skip
"""The child of a payment."""

REORDER = Kind(
    "stock.reorder", "Order what is running out.", 44.0, every=6 * HOUR,
    lines=("Ordered {number} articles",),
)  # fmt: skip
"""The task that is overdue."""

VOUCHERS = Kind("shop.expire_vouchers", "End the vouchers of last year.")
CATALOGUE = Kind("reports.paper_catalogue", "Lay out the printed catalogue.")
"""The tasks that have never run: one is not due yet, and the other's entry is not enabled."""

HOOK = Kind(
    "webhooks.deliver", "Tell a partner what has happened.", 0.4, weight=48, failures=0.02,
    errors=("HTTPError: {ip} answered 503 for the event {uuid}",),
    lines=("Delivered the event {uuid}",), kwargs=(("event", "{uuid}"),),
)  # fmt: skip

OTHERS = (
    # Tasks that requests send.
    Kind("billing.refund", "Give the money of an order back.", 1.9, weight=8,
         kwargs=(("order", "{order}"),)),
    Kind("mail.send_order_confirmation", "Confirm an order by mail.", 0.5, "mail", weight=95,
         lines=("Sent to {mail}",), kwargs=(("order", "{order}"),)),
    Kind("mail.send_password_reset", "Send the link for a new password.", 0.4, "mail", weight=22,
         lines=("Sent to {mail}",)),
    Kind("stock.reserve", "Reserve the articles of an order.", 0.2, weight=70, warnings=0.02,
         warning="Only {number} pieces left", kwargs=(("order", "{order}"),)),
    Kind("shipping.print_label", "Print the label of a parcel.", 2.2, weight=42, failures=0.008,
         errors=("PrinterError: tray {number} of {host} is empty",),
         kwargs=(("order", "{order}"),)),
    Kind("search.index_product", "Index one product.", 0.15, weight=40,
         kwargs=(("product", "{number}"),)),
    Kind("crm.update_customer", "Copy a customer to the CRM.", 0.9, weight=26, failures=0.01,
         errors=("HTTPError: 429 from {host}, retry after {number} s",)),
    Kind("crm.delete_customer", "Delete a customer everywhere.", 5.0, weight=1),
    Kind("exports.customer_data", "Write all data of a customer into a file.", 31.0, weight=1.5),
    Kind("exports.orders", "Write orders into a file.", 55.0, weight=2),
    Kind("shop.recommend", "Find what a customer might like.", 0.8, weight=30),
    Kind("security.scan_upload", "Scan an uploaded file.", 2.7, weight=12, warnings=0.01,
         warning="A macro in the file {uuid}"),
    Kind("support.escalate", "Tell the manager of a customer.", 0.6, weight=3,
         lines=("Told {mail}",)),
    Kind("support.classify_mail", "Find out what a mail is about.", 1.1, weight=14),
    # Every few hours.
    SYNC,
    Kind("ldap.sync_directory", SYNC.description, 6.0, uid="us", every=30 * MINUTE,
         lines=SYNC.lines),
    Kind("orders.cancel_unpaid", "Cancel orders that nobody has paid.", 1.2, every=HOUR,
         lines=("Cancelled {number} orders",)),
    Kind("shipping.track_parcels", "Ask the carriers where parcels are.", 17.0, every=HOUR,
         failures=0.02, warnings=0.05),
    Kind("analytics.aggregate_visits", "Count the visits of an hour.", 9.0, every=HOUR),
    Kind("shop.update_exchange_rates", "Fetch the exchange rates.", 0.7, every=6 * HOUR),
    Kind("ops.check_certificates", "Look for certificates that expire soon.", 3.0,
         every=6 * HOUR, warnings=1.0, warning="The certificate of {host} expires in 6 days"),
    Kind("ops.clean_sessions", "Delete the sessions that have expired.", 0.3, every=2 * HOUR,
         lines=("Deleted {number} sessions",)),
    Kind("webhooks.delete_old", "Delete the events that were delivered.", 2.0, every=6 * HOUR),
    Kind("stock.count_warehouse", "Compare the stock with the books.", 64.0, uid="berlin",
         every=12 * HOUR),
    Kind("stock.count_warehouse", "Compare the stock with the books.", 71.0, uid="lyon",
         every=12 * HOUR, warnings=0.3, warning="{number} pieces are missing"),
    Kind("stock.count_warehouse", "Compare the stock with the books.", 58.0, uid="porto",
         every=12 * HOUR),
    # Once a day.
    _daily("ops.nightly_backup", 1, 30, "Back up the database.", 560.0,
           lines=("Wrote 38 GB", "Deleted the backup of 30 days ago")),
    _daily("ops.vacuum_database", 4, 0, "Give back what deleted rows have left.", 120.0),
    _daily("billing.settle_payouts", 5, 0, "Pay what sellers have earned.", 48.0),
    _daily("billing.remind_of_invoices", 6, 0, "Remind of invoices that are due.", 22.0,
           lines=("Sent {number} reminders",)),
    _daily("crm.import_leads", 3, 15, "Import the leads of the day.", 33.0, failures=0.07),
    _daily("crm.score_leads", 4, 10, "Guess which leads will buy.", 19.0),
    _daily("crm.merge_duplicates", 3, 45, "Merge customers that are the same.", 140.0),
    _daily("security.rotate_keys", 4, 30, "Replace the keys of the day.", 2.0),
    _daily("security.delete_logs", 4, 45, "Delete the logs of 90 days ago.", 8.0),
    _daily("media.delete_orphans", 3, 0, "Delete the files that nothing refers to.", 75.0),
    _daily("mail.send_digest", 7, 0, "Send the day's digest.", 90.0, "mail"),
    _daily("mail.clean_bounces", 5, 30, "Remove addresses that bounce.", 4.0, "mail"),
    _daily("reports.sales_of_week", 5, 45, "Add up the sales of seven days.", 84.0),
    _daily("reports.slow_sellers", 6, 15, "List what nobody buys.", 51.0),
    _daily("analytics.export_to_lake", 2, 30, "Copy the day to the data lake.", 230.0,
           failures=0.1, errors=("S3Error: SlowDown: reduce your request rate ({uuid})",)),
    _daily("search.rebuild_synonyms", 4, 15, "Learn synonyms from searches.", 66.0),
    _daily("shop.refresh_sitemap", 0, 10, "Write the sitemap.", 12.0),
    _daily("shop.price_rules", 0, 5, "Apply the price rules of the day.", 28.0),
)  # fmt: skip

KINDS = (
    CHARGE, REPORT, REINDEX, IMPORT, THUMBNAILS, VIDEO, STATEMENT, NEWSLETTER, CLOSE_DAY,
    CLOSE_SHOP, SUM_UP, INVOICE, REORDER, VOUCHERS, CATALOGUE, HOOK, *OTHERS,
)  # fmt: skip
"""All tasks: 60."""
