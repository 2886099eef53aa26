"""The admin API: `/admin/v1/...`, for those whose key has the scope `admin`."""
