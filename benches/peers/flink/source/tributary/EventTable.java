package tributary;

import java.nio.ByteBuffer;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.ScanTableSource;
import org.apache.flink.table.connector.source.SourceProvider;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
import org.apache.flink.table.factories.FactoryUtil;

/**
 * The table of events over the bench's row file: {@code event_type} and the columns of persons, auctions and bids side
 * by side, all of them decoded, as in the Parquet files that the row file was made of.
 */
final class EventTable implements ScanTableSource {
  /** The columns after the kind: {@code b} bigint, {@code t} text, {@code d} time in milliseconds. */
  private static final char[] COLUMNS = ("btttttdt" + "bttbbddbbt" + "bbbttdt").toCharArray();
  /** Where the columns of each kind begin, and where the last ones end. */
  private static final int[] BOUNDS = {0, 8, 18, 25};

  private final String path;
  private final long limit;

  private EventTable(String path, long limit) {
    this.path = path;
    this.limit = limit;
  }

  /** The next event of a block. */
  static GenericRowData decode(ByteBuffer block) {
    GenericRowData row = new GenericRowData(1 + COLUMNS.length);
    int kind = block.get();
    row.setField(0, kind);
    for (int at = BOUNDS[kind]; at < BOUNDS[kind + 1]; at++) {
      row.setField(1 + at, value(COLUMNS[at], block));
    }
    return row;
  }

  private static Object value(char type, ByteBuffer block) {
    switch (type) {
      case 'b':
        return block.getLong();
      case 'd':
        return TimestampData.fromEpochMillis(block.getLong());
      default:
        byte[] text = new byte[block.getInt()];
        block.get(text);
        return StringData.fromBytes(text);
    }
  }

  @Override
  public ChangelogMode getChangelogMode() {
    return ChangelogMode.insertOnly();
  }

  @Override
  public ScanRuntimeProvider getScanRuntimeProvider(ScanContext context) {
    return SourceProvider.of(new EventSource(path, limit));
  }

  @Override
  public DynamicTableSource copy() {
    return new EventTable(path, limit);
  }

  @Override
  public String asSummaryString() {
    return "events";
  }

  /** Makes tables of {@code 'connector' = 'tributary-events'}. */
  public static final class Factory implements DynamicTableSourceFactory {
    private static final ConfigOption<String> PATH = ConfigOptions.key("path").stringType().noDefaultValue();
    private static final ConfigOption<Long> LIMIT = ConfigOptions.key("limit").longType().noDefaultValue();

    @Override
    public DynamicTableSource createDynamicTableSource(Context context) {
      FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
      helper.validate();
      return new EventTable(helper.getOptions().get(PATH), helper.getOptions().get(LIMIT));
    }

    @Override
    public String factoryIdentifier() {
      return "tributary-events";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
      return Set.of(PATH, LIMIT);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
      return Set.of();
    }
  }
}
