"""From people's tables to rows on a device."""
