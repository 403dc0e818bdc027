from rest_framework.pagination import PageNumberPagination


class Pagination(PageNumberPagination):
    pass
