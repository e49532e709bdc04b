"""What a tenant is made of: each part can be ensured, observed and removed, any number of times."""
