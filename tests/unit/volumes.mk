unit_tests += tests/unit/test-volumes tests/unit/test-volumes-oracle

volumes_pool = tests/unit/volumes-pool.c tests/unit/volumes-pool.h

tests_unit_test_volumes_SOURCES = tests/unit/test-volumes.c $(volumes_pool)
tests_unit_test_volumes_LDADD = $(unit_ldadd)

tests_unit_test_volumes_oracle_SOURCES = tests/unit/test-volumes-oracle.c $(volumes_pool)
tests_unit_test_volumes_oracle_LDADD = $(unit_ldadd)
